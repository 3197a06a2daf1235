"use strict";

// Renders /openapi.json, and sends the requests that a reader tries. Everything that
// comes from outside goes into the page as text, never as markup.

const shownBytes = 200_000;

function element(name, attributes, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) e.setAttribute(key, value);
  e.append(...children);
  return e;
}

// marked shows the little Markdown that descriptions have: `code`.
function marked(text) {
  return (text || "").split("`").map((piece, i) => (i % 2 ? element("code", {}, piece) : piece));
}

function paragraphs(text) {
  return (text || "").split("\n\n").map((part) => element("p", {}, ...marked(part)));
}

// named finds what a $ref leads to.
function named(api, schema) {
  if (!schema || !schema.$ref) return schema;
  return schema.$ref.slice(2).split("/").reduce((at, name) => at[name], api);
}

// outline writes a schema as an indented text, each named one once on the way down.
function outline(api, schema, indent = "", inside = []) {
  const name = schema && schema.$ref;
  if (name && inside.includes(name)) return "… as above (" + name.split("/").pop() + ")";
  const s = named(api, schema) || {};
  const within = name ? [...inside, name] : inside;
  if (within.length > 4) return name.split("/").pop();
  if (s.allOf) return outline(api, s.allOf[0], indent, within);
  if (s.anyOf) return s.anyOf.map((one) => outline(api, one, indent, within)).join("\n" + indent + "or ");
  if (s.type === "array") return "list of " + outline(api, s.items, indent, within);
  if (s.properties) {
    const lines = Object.entries(s.properties).map(([key, value]) => {
      const optional = (s.required || []).includes(key) ? "" : "?";
      return indent + "  " + key + optional + ": " + outline(api, value, indent + "  ", within);
    });
    return "{\n" + lines.join("\n") + "\n" + indent + "}";
  }
  if (s.additionalProperties) return "{ …: " + outline(api, s.additionalProperties, indent, within) + " }";
  return (s.enum ? s.enum.join(" | ") : s.format || s.type || "any");
}

function field(parameter) {
  const schema = parameter.schema.items || parameter.schema;
  const attributes = { "aria-label": parameter.name };
  if (schema.enum || schema.type === "boolean") {
    const choices = ["", ...(schema.enum || ["true", "false"])];
    return element("select", attributes, ...choices.map((c) => element("option", {}, String(c))));
  }
  const example = parameter.example === undefined ? "" : String([].concat(parameter.example)[0]);
  const input = element("input", { ...attributes, placeholder: example, autocomplete: "off" });
  if (parameter.in === "path" || parameter.required) input.value = example;
  return input;
}

function limits(parameter) {
  const schema = parameter.schema.items || parameter.schema;
  const facts = [schema.format || schema.type];
  if (schema.minimum !== undefined) facts.push(schema.minimum + " to " + schema.maximum);
  if (schema.default !== undefined) facts.push("default " + schema.default);
  if (parameter.schema.items) facts.push("repeatable: several with a blank between them");
  if (parameter.required) facts.push("required");
  return facts.join(", ");
}

// address is the URL of a request with what the reader has filled in.
function address(path, fields) {
  const query = new URLSearchParams();
  for (const { parameter, input } of fields) {
    if (input.value === "") continue;
    if (parameter.in === "path") {
      path = path.replace("{" + parameter.name + "}", encodeURIComponent(input.value));
    } else if (parameter.schema.items) {
      input.value.split(" ").filter((v) => v).forEach((v) => query.append(parameter.name, v));
    } else {
      query.append(parameter.name, input.value);
    }
  }
  const text = query.toString();
  return path + (text ? "?" + text : "");
}

// start reads the beginning of an answer, which may be a stream without end.
async function start(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return { text: text + decoder.decode(), whole: true };
    text += decoder.decode(value, { stream: true });
    if (text.length > shownBytes) {
      await reader.cancel();
      return { text: text.slice(0, shownBytes), whole: false };
    }
  }
}

function pretty(response, answer) {
  if (answer.whole && (response.headers.get("Content-Type") || "").startsWith("application/json")) {
    try {
      return JSON.stringify(JSON.parse(answer.text), null, 2);
    } catch {
      return answer.text;
    }
  }
  return answer.text + (answer.whole ? "" : "\n… cut here");
}

async function attempt(url, out) {
  out.replaceChildren(element("p", {}, "GET ", element("a", { href: url }, url)));
  try {
    const begun = performance.now();
    const response = await fetch(url);
    const answer = await start(response);
    const took = Math.round(performance.now() - begun);
    const id = response.headers.get("X-Request-Id") || "none";
    out.append(element("p", { role: "status" }, `${response.status} ${response.statusText} in ${took} ms, request ${id}`));
    out.append(element("pre", { tabindex: "0" }, pretty(response, answer)));
  } catch (problem) {
    out.append(element("p", { role: "alert" }, "No answer: " + problem.message));
  }
}

function fill(api, path, operation, into) {
  into.append(...paragraphs(operation.description));
  const fields = (operation.parameters || []).map((parameter) => ({ parameter, input: field(parameter) }));
  if (fields.length > 0) {
    const rows = fields.map(({ parameter, input }) => element("tr", {},
      element("td", {}, element("code", {}, parameter.name)),
      element("td", {}, input),
      element("td", {}, ...marked(parameter.description), element("div", { class: "muted" }, limits(parameter)))));
    into.append(element("table", {}, element("tbody", {}, ...rows)));
  }
  const out = element("div");
  const send = element("button", { type: "button" }, "Try it");
  send.addEventListener("click", () => attempt(address(path, fields), out));
  into.append(send, out);
  const content = operation.responses["200"].content || {};
  for (const [media, body] of Object.entries(content)) {
    into.append(element("details", {}, element("summary", {}, "Answer, " + media), element("pre", { tabindex: "0" }, outline(api, body.schema))));
  }
}

function operationOf(api, path, operation) {
  const body = element("div");
  const details = element("details", { class: "operation", id: operation.operationId },
    element("summary", {}, element("code", {}, path), operation.summary || ""), body);
  details.addEventListener("toggle", () => {
    if (details.open && !body.hasChildNodes()) fill(api, path, operation, body);
  });
  return details;
}

function show(api) {
  const about = document.getElementById("about");
  about.replaceWith(...paragraphs(api.info.description), element("p", {}, "Version " + api.info.version + ". ", element("a", { href: "/openapi.json" }, "OpenAPI document")));
  const main = document.getElementById("operations");
  const sections = api.tags.map((tag) => {
    const section = element("section", {}, element("h2", {}, tag.name), element("p", { class: "muted" }, tag.description));
    for (const [path, item] of Object.entries(api.paths)) {
      if (item.get.tags[0] === tag.name) section.append(operationOf(api, path, item.get));
    }
    return section;
  });
  main.replaceChildren(...sections);
  document.getElementById("find").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const section of sections) {
      const operations = [...section.querySelectorAll("details.operation")];
      for (const o of operations) o.hidden = !o.querySelector("summary").textContent.toLowerCase().includes(wanted);
      section.hidden = operations.every((o) => o.hidden);
    }
  });
  if (location.hash) document.getElementById(location.hash.slice(1))?.setAttribute("open", "");
}

fetch("/openapi.json")
  .then((response) => response.json())
  .then(show)
  .catch((problem) => { document.getElementById("about").textContent = "The description could not be read: " + problem.message; });
