import assert from 'node:assert/strict'
import { createHash, createHmac, pbkdf2Sync } from 'node:crypto'
import { mock, test } from 'node:test'
import { Client, KafkaError, type Sasl, type WebSocketConstructor } from '../src/index.js'
import { ownHashes } from '../src/sha2.js'
import { subtleHashes, type HashName, type Hashes } from '../src/hash.js'
import { authenticate, scram } from '../src/sasl.js'
import { fakeGateway, type FakeSocket } from './fake.js'

const bytes = (s: string): Uint8Array => new Uint8Array(Buffer.from(s))
const text = (b: Uint8Array): string => Buffer.from(b).toString()

/** Plays the other side: what must be said, and what is answered. */
const script = (...lines: [said: string, answer: string][]) => async (message: Uint8Array): Promise<Uint8Array> => {
  const [said, answer] = lines.shift() ?? ['nothing', '']
  assert.equal(text(message), said)
  return bytes(answer)
}

const rfc5802: [string, string][] = [
  ['n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL', 'r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096'],
  ['c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=', 'v=rmF9pqV8S7suAoZWja4dJRkFsKQ='],
]
const rfc7677: [string, string][] = [
  ['n,,n=user,r=rOprNGfwEbeRWgbNEkqO', 'r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096'],
  [
    'c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=',
    'v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=',
  ],
]

test('SCRAM says what RFC 5802 and RFC 7677 say, by the platform and by itself', async () => {
  await scram(subtleHashes('SHA-1', crypto.subtle), 'user', 'pencil', script(...rfc5802), 'fyko+d2lbbFgONRv9qkxdawL')
  for (const h of [subtleHashes('SHA-256', crypto.subtle), ownHashes('SHA-256')]) {
    await scram(h, 'user', 'pencil', script(...rfc7677), 'rOprNGfwEbeRWgbNEkqO')
  }
})

test('own hashes are those of Node', async () => {
  for (const name of ['SHA-256', 'SHA-512'] as HashName[]) {
    const node = name.replace('-', '')
    const h = ownHashes(name)
    const same = (a: Uint8Array, b: Buffer): void => assert.deepEqual(Buffer.from(a), b)
    for (let n = 0; n < 300; n += 7) {
      const b = new Uint8Array(n).map((_, i) => i * 31 + n)
      same(await h.hash(b), createHash(node).update(b).digest())
      same(await h.hmac(b, bytes('text')), createHmac(node, b).update('text').digest())
    }
    same(await h.pbkdf2(bytes('password'), bytes('salt'), 1500), pbkdf2Sync('password', 'salt', 1500, name === 'SHA-256' ? 32 : 64, node))
  }
})

const rejects = (e: KafkaError): boolean => e instanceof KafkaError && e.name === 'SASL_AUTHENTICATION_FAILED'
const short = 'rOprNGfwEbeRWgbNEkqO'

test('SCRAM refuses a server that cheats', async () => {
  const h = subtleHashes('SHA-256', crypto.subtle)
  const [first, last] = rfc7677
  const cheats: [string, string][][] = [
    [[first[0], first[1].replace('i=4096', 'i=1')]],
    [[first[0], first[1].replace('i=4096', 'i=999999999')]],
    [[first[0], first[1].replace('r=r', 'r=x')]],
    [[first[0], `r=${short},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096`]],
    [[first[0], first[1].replace('s=W22', 's=!!!')]],
    [[first[0], '']],
    [[first[0], 'e=unknown-user']],
    [first, [last[0], 'v=AAAA']],
    [first, [last[0], 'e=invalid-proof']],
  ]
  for (const cheat of cheats) await assert.rejects(scram(h, 'user', 'pencil', script(...cheat), short), rejects, cheat.at(-1)![1])
})

test('PLAIN and OAUTHBEARER say what their RFCs say', async () => {
  await authenticate({ mechanism: 'PLAIN', username: 'tim', password: 'tanstaaftanstaaf' }, script(['\0tim\0tanstaaftanstaaf', '']))
  const token = 'vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=='
  await authenticate({ mechanism: 'OAUTHBEARER', token }, script([`n,,\x01auth=Bearer ${token}\x01\x01`, '']))
  await authenticate(
    { mechanism: 'OAUTHBEARER', token: async () => 'abc', extensions: { logicalCluster: 'x' } },
    script(['n,,\x01auth=Bearer abc\x01logicalCluster=x\x01\x01', '']),
  )
  await assert.rejects(
    authenticate({ mechanism: 'OAUTHBEARER', token: 'abc' }, script(['n,,\x01auth=Bearer abc\x01\x01', '{"status":"invalid_token"}'], ['\x01', ''])),
    rejects,
  )
})

/** A gateway with SASL, which knows one user. */
function gatewayOf(mechanism: 'SCRAM-SHA-256' | 'SCRAM-SHA-512' | 'PLAIN', log: string[], h?: Hashes, lifetimeMs = 0n): WebSocketConstructor {
  const exchanges = new Map<FakeSocket, string[]>()
  const check = async (steps: string[], said: string): Promise<string | null> => {
    if (mechanism === 'PLAIN') return said === '\0me=,\0secret' ? '' : null
    steps.push(said)
    const b64 = (b: Uint8Array): string => Buffer.from(b).toString('base64')
    const salt = bytes('salt')
    if (steps.length === 1) {
      const m = /^n,,(n=me=3D=2C,r=(.*))$/.exec(said)
      if (!m) return null
      steps.push(m[1], `r=${m[2]}server,s=${b64(salt)},i=4096`)
      return steps[2]
    }
    const [, bare, first] = steps
    const [final, proof] = said.split(',p=')
    const message = bytes(`${bare},${first},${final}`)
    const salted = await h!.pbkdf2(bytes('secret'), salt, 4096)
    const key = await h!.hmac(salted, bytes('Client Key'))
    const signature = await h!.hmac(await h!.hash(key), message)
    if (b64(key.map((k, i) => k ^ signature[i])) !== proof) return null
    return 'v=' + b64(await h!.hmac(await h!.hmac(salted, bytes('Server Key')), message))
  }
  return fakeGateway(async ({ key }, request, socket) => {
    log.push(String(key))
    if (key === 17) {
      exchanges.set(socket, [])
      return { errorCode: request.mechanism === mechanism ? 0 : 33, mechanisms: [mechanism] }
    }
    if (key === 3) return { throttleMs: 0, brokers: [], clusterId: 'fake', controllerId: 1, topics: [] }
    if (key !== 36) return
    const said = await check(exchanges.get(socket)!, text(request.authBytes))
    const ok = said !== null
    return { errorCode: ok ? 0 : 58, errorMessage: ok ? null : 'no', authBytes: bytes(said ?? ''), sessionLifetimeMs: lifetimeMs }
  })
}

test('a client logs in before it asks for anything, and wrong credentials are told at once', async () => {
  for (const mechanism of ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'] as const) {
    const log: string[] = []
    const h = mechanism === 'PLAIN' ? undefined : subtleHashes(mechanism.slice(6) as HashName, crypto.subtle)
    const connect = (sasl: Sasl) => new Client({ gateways: ['ws://fake/'], WebSocket: gatewayOf(mechanism, log, h), sasl })
    const good = connect({ mechanism, username: 'me=,', password: 'secret' })
    assert.equal((await good.metadata()).clusterId, 'fake')
    assert.deepEqual(log, mechanism === 'PLAIN' ? ['18', '17', '36', '3'] : ['18', '17', '36', '36', '3'])
    good.close()
    await assert.rejects(connect({ mechanism, username: 'me=,', password: 'wrong' }).metadata(), rejects)
    await assert.rejects(
      connect({ mechanism: 'OAUTHBEARER', token: 'x' }).metadata(),
      (e: KafkaError) => e.name === 'UNSUPPORTED_SASL_MECHANISM' && e.message.includes(mechanism),
    )
  }
})

test('a session is renewed before it ends, and its connection stays', async () => {
  mock.timers.enable({ apis: ['setTimeout'] } as never) // typed as it was in Node.js 20.4
  try {
    const log: string[] = []
    const h = subtleHashes('SHA-256', crypto.subtle)
    const events: string[] = []
    const until = async (f: () => boolean): Promise<void> => {
      while (!f()) await new Promise(done => setImmediate(done))
    }
    const client = new Client({
      gateways: ['ws://fake/'], WebSocket: gatewayOf('SCRAM-SHA-256', log, h, 60_000n), onEvent: e => events.push(e.type),
      sasl: { mechanism: 'SCRAM-SHA-256', username: 'me=,', password: 'secret' },
    })
    await client.metadata()
    log.length = 0
    mock.timers.tick(47_000)
    await client.metadata()
    assert.deepEqual(log, ['3'])
    mock.timers.tick(2_000)
    await until(() => log.length === 4)
    await client.metadata()
    assert.deepEqual(log, ['3', '17', '36', '36', '3'])
    // What it makes of the last answer takes its time, and then the next one is due.
    await until(() => {
      mock.timers.tick(100)
      return log.length === 8
    })
    assert.deepEqual(events, ['connected'])
    client.close()
  } finally {
    mock.timers.reset()
  }
})
