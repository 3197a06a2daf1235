import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import net from 'node:net'

// A port of 127.0.0.1 that is free now. A PDS has to know its port, which is a part
// of its identity, before it listens. The port lies below those that systems give to
// outgoing connections, so that none of these takes it before the server does.
export async function freePort() {
  for (let tries = 100; ; tries--) {
    const port = randomInt(20000, 32000)
    try {
      await probe(port)
      return port
    } catch (err) {
      if (tries === 1) throw err
    }
  }
}

// Listens on a port for a moment, which fails where somebody else does.
async function probe(port) {
  const server = net.createServer().listen(port, '127.0.0.1')
  await once(server, 'listening')
  server.close()
  await once(server, 'close')
}

// Has an Express application, which would listen on every interface, listen on
// 127.0.0.1 alone.
export function onLoopback(app) {
  const listen = app.listen
  app.listen = (port) => listen.call(app, port, '127.0.0.1')
}
