import { once } from 'node:events'
import net from 'node:net'

// A port of 127.0.0.1 that is free now. A PDS has to know its port, which is a part
// of its identity, before it listens.
export async function freePort() {
  const probe = net.createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address()
  probe.close()
  await once(probe, 'close')
  return port
}

// Has an Express application, which would listen on every interface, listen on
// 127.0.0.1 alone.
export function onLoopback(app) {
  const listen = app.listen
  app.listen = (port) => listen.call(app, port, '127.0.0.1')
}
