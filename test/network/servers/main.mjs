// Runs a PLC directory and two PDSes on free loopback ports:
//
//   node main.mjs DIRECTORY
//
// DIRECTORY takes the PDSes' data. One line of JSON on standard output says where
// they answer. They stop at SIGTERM, or when standard input ends.
import path from 'node:path'
import process from 'node:process'

import { startPds } from './pds.mjs'
import { startPlc } from './plc.mjs'

const [directory] = process.argv.slice(2)
const running = []

// Stops the servers in the order opposite to their start. A server that hangs does
// not keep the program alive.
let stopping = false
async function stop(code) {
  if (stopping) return
  stopping = true
  setTimeout(() => process.exit(code), 5000).unref()
  for (const server of running.reverse()) {
    await server.stop().catch((err) => console.error('stop:', err))
  }
  process.exit(code)
}

process.on('SIGTERM', () => stop(0))
process.on('SIGINT', () => stop(0))
process.stdin.on('end', () => stop(0)).resume()

function add(server) {
  running.push(server)
  return server
}

try {
  const plc = add(await startPlc())
  const pdses = []
  for (const name of ['pds1', 'pds2']) {
    pdses.push(add(await startPds({ name, plcUrl: plc.url, directory: path.join(directory, name) })))
  }
  const describe = ({ stop, ...what }) => what
  console.log(JSON.stringify({ plc: plc.url, pdses: pdses.map(describe) }))
} catch (err) {
  console.error('start:', err)
  await stop(1)
}
