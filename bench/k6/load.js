// So many readers, each with its next question as soon as it has an answer.
import http from 'k6/http';
import { check } from 'k6';
import { Counter } from 'k6/metrics';
import { SharedArray } from 'k6/data';

const paths = new SharedArray('questions', () => JSON.parse(open(__ENV.QUESTIONS)));
const refused = new Counter('refused'); // 503 with Retry-After: the API's own limit
const wrong = new Counter('wrong'); // anything else that is no answer

export const options = {
  scenarios: {
    readers: { executor: 'constant-vus', vus: Number(__ENV.READERS), duration: __ENV.DURATION, gracefulStop: '30s' },
  },
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
  discardResponseBodies: false,
};

export default function () {
  const path = paths[Math.floor(Math.random() * paths.length)];
  const res = http.get(__ENV.BASE + path, { tags: { name: 'question' } });
  if (res.status === 503 && res.headers['Retry-After']) {
    refused.add(1);
    return;
  }
  const good = check(res, {
    answered: (r) => r.status === 200,
    'by the first store': (r) => r.status !== 200 || r.json('degraded') !== true,
  });
  if (!good) wrong.add(1);
}

export function handleSummary(data) {
  const value = (metric, field) => (data.metrics[metric] ? data.metrics[metric].values[field] : 0);
  return {
    stdout: JSON.stringify({
      rate: value('http_reqs', 'rate'),
      median: value('http_req_duration', 'med'),
      p95: value('http_req_duration', 'p(95)'),
      p99: value('http_req_duration', 'p(99)'),
      max: value('http_req_duration', 'max'),
      bytes: value('data_received', 'count') / Math.max(1, value('http_reqs', 'count')),
      refused: value('refused', 'count'),
      wrong: value('wrong', 'count'),
    }),
  };
}
