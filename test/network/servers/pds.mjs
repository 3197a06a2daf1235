import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'

import pdsPackage from '@atproto/pds'

import { freePort, onLoopback } from './loopback.mjs'

const { PDS, envToCfg, envToSecrets } = pdsPackage
const secret = () => randomBytes(32).toString('hex')

// Starts a PDS whose accounts have handles under .NAME.test.
export async function startPds({ name, plcUrl, directory }) {
  const port = await freePort()
  const domain = `.${name}.test`
  const adminPassword = secret()
  const rotationKey = secret()
  fs.mkdirSync(directory, { recursive: true })
  const env = {
    port,
    hostname: 'localhost', // the one host name for which it says http
    serviceDid: `did:web:localhost%3A${port}`,
    devMode: true,
    disableSsrfProtection: true, // all that it fetches is on loopback
    version: 'test',
    didPlcUrl: plcUrl,
    didCacheStaleTTL: 1000, // ms: changes of identity show soon
    didCacheMaxTTL: 2000,
    serviceHandleDomains: [domain],
    inviteRequired: false,
    rateLimitsEnabled: false,
    maxSubscriptionBuffer: 20000,
    dataDirectory: directory,
    blobstoreDiskLocation: path.join(directory, 'blobs'),
    blobstoreDiskTmpLocation: path.join(directory, 'blobs-tmp'),
    adminPassword,
    jwtSecret: secret(),
    dpopSecret: secret(),
    plcRotationKeyK256PrivateKeyHex: rotationKey,
  }
  const pds = await PDS.create(envToCfg(env), envToSecrets(env))
  onLoopback(pds.app)
  await pds.start()
  return { url: `http://localhost:${port}`, did: env.serviceDid, domain, adminPassword, rotationKey, stop: () => pds.destroy() }
}
