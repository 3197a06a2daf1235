import http from 'node:http'

import { validateOperationLog } from '@did-plc/lib'
import plc from '@did-plc/server'

import { freePort, onLoopback } from './loopback.mjs'

// Starts a PLC directory that keeps its operations, which it validates as the real
// one does, in memory.
export async function startPlc() {
  const db = plc.Database.mock()
  const port = await freePort()
  const server = plc.PlcServer.create({ db, port })
  server.app.listen = serveMultikeyDocuments(server.app, db)
  onLoopback(server.app)
  await server.start()
  return { url: `http://127.0.0.1:${port}`, stop: () => server.destroy() }
}

// The package is older than the form of DID document that the public directory
// serves today, with Multikey keys and full key ids. So documents are answered
// here, and everything else by the application.
function serveMultikeyDocuments(app, db) {
  return (...address) => http.createServer(async (req, res) => {
    const did = decodeURIComponent(req.url.slice(1))
    const isDocument = req.method === 'GET' && /^did:plc:[a-z2-7]{24}$/.test(did)
    const data = isDocument && (await current(db, did))
    if (!data) return app(req, res) // which says so, where the DID is unknown
    res.setHeader('content-type', 'application/did+ld+json; charset=utf-8')
    res.end(JSON.stringify(document(data)))
  }).listen(...address)
}

async function current(db, did) {
  const operations = await db.opsForDid(did)
  return operations.length > 0 && (await validateOperationLog(did, operations))
}

function document({ did, alsoKnownAs, verificationMethods, services }) {
  return {
    '@context': [
      'https://www.w3.org/ns/did/v1',
      'https://w3id.org/security/multikey/v1',
      'https://w3id.org/security/suites/secp256k1-2019/v1',
    ],
    id: did,
    alsoKnownAs,
    verificationMethod: Object.entries(verificationMethods).map(([name, key]) => ({
      id: `${did}#${name}`,
      type: 'Multikey',
      controller: did,
      publicKeyMultibase: key.slice('did:key:'.length),
    })),
    service: Object.entries(services).map(([name, { type, endpoint }]) => ({
      id: `#${name}`,
      type,
      serviceEndpoint: endpoint,
    })),
  }
}
