import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { Assignment, Subscription } from '../src/apis-group.js'
import { Reader, Writer } from '../src/bytes.js'
import { codecNames } from '../src/compression.js'
import { decodeAnswer, encodeRequest } from '../src/connection.js'
import { KafkaError, errorName } from '../src/errors.js'
import { Room, decodeBatches, encodeBatch, type ConsumedRecord } from '../src/records.js'
import type { Api } from '../src/schema.js'
import { answerBytes, apis } from './fake.js'

const data = (name: string) => JSON.parse(readFileSync(new URL(`../../test/testdata/${name}`, import.meta.url), 'utf8'))
const bytesOf = (s: string): Uint8Array => new Uint8Array(Buffer.from(s, 'base64'))
interface Golden { key: number; version: number; name: string; requests: string[]; responses: string[] }
const frames: Golden[] = data('frames.json')
const codecs: { name: string; codec: number; set: string }[] = data('codecs.json')

test('every API is in the golden frames, in its version', () => {
  assert.deepEqual(apis.filter(a => a.key < 21586).map(a => [a.key, a.version]).sort(), frames.map(f => [f.key, f.version]).sort())
})

for (const f of frames) {
  test(`${f.name} version ${f.version}: decoded and encoded again it is the same`, () => {
    const api = apis.find(a => a.key === f.key)!
    for (const want of f.requests.map(bytesOf)) {
      const header = 4 + 2 + 2 + 4 + 2 + 6 + (api.flexible ? 1 : 0)
      const r = new Reader(want.subarray(header), api.flexible)
      const request = api.request.read(r)
      r.end()
      assert.deepEqual(encodeRequest(api, 7, 'golden', request), want)
    }
    for (const want of f.responses.map(bytesOf)) assert.deepEqual(answerBytes(api, decodeAnswer(api, want)), want)
  })
}

test('tagged fields that are not known are kept', () => {
  const api = apis.find(a => a.key === 12)!
  const answer = decodeAnswer(api, Uint8Array.of(0, 0, 0, 0, 5, 0, 27, 1, 3, 2, 8, 9))
  assert.deepEqual(answer, { throttleMs: 5, errorCode: 27, tags: [[3, Uint8Array.of(8, 9)]] })
  assert.deepEqual(answerBytes(api, answer), Uint8Array.of(0, 0, 0, 0, 5, 0, 27, 1, 3, 2, 8, 9))
})

test('errors have the names of Kafka, and are retriable where its clients retry', () => {
  for (const e of data('errors.json') as { code: number; name: string; retriable: boolean }[]) {
    const mine = new KafkaError(e.code)
    // franz-go has the name that Kafka had before 2.6, and retries other things: Kafka's exceptions decide.
    if (e.code === 6) e.name = 'NOT_LEADER_OR_FOLLOWER'
    if (e.code === 8) e.retriable = false
    if ([51, 122, 123].includes(e.code)) e.retriable = true
    assert.deepEqual([errorName(e.code), mine.name, mine.retriable], [e.name, e.name, e.retriable], String(e.code))
  }
  assert.equal(errorName(-1), 'UNKNOWN_SERVER_ERROR')
  assert.equal(errorName(12345), 'UNKNOWN_SERVER_ERROR')
})

const plain = (r: ConsumedRecord) => ({ ...r, key: r.key && Buffer.from(r.key).toString(), value: r.value && Buffer.from(r.value).toString() })

test('batches of every codec give the same records', async () => {
  let first: unknown
  for (const c of codecs) {
    const [b, ...rest] = await decodeBatches(bytesOf(c.set), 't', 3)
    assert.equal(rest.length, 0)
    assert.equal(b.attributes & 7, c.codec)
    const records = [...b.records].map(plain)
    assert.equal(records.length, 300, c.name)
    assert.deepEqual(records[0], { topic: 't', partition: 3, offset: 1000n, timestamp: 1_700_000_000_000, key: null, value: '', headers: [] })
    assert.equal(records[299].timestamp, 1_700_000_000_000 + 299 ** 3 * 1000)
    assert.equal(records[17].headers[0].key, 'h')
    assert.equal(records[17].headers[1].value, null)
    first ??= records
    assert.deepEqual(records, first, c.name)
  }
  assert.deepEqual([...new Set(codecs.map(c => c.codec))].sort(), [0, 1, 2, 3, 4])
})

test('records below an offset are left out', async () => {
  const set = bytesOf(codecs[0].set)
  assert.equal([...(await decodeBatches(set, 't', 0, 1290n))[0].records][0].offset, 1290n)
  assert.equal([...(await decodeBatches(set, 't', 0, 1300n))[0].records].length, 0)
})

test('a batch that is cut off at the end is left for the next answer', async () => {
  const set = bytesOf(codecs[0].set)
  assert.equal((await decodeBatches(new Uint8Array(Buffer.concat([set, set.subarray(0, 100)])), 't', 0)).length, 1)
})

test('a batch is encoded to the bytes of franz-go', async () => {
  const want = bytesOf(codecs.find(c => c.name === 'none')!.set)
  const records = [...(await decodeBatches(want, 't', 0))[0].records]
  const got = await encodeBatch(records, 'none', { producerId: 12345678901n, producerEpoch: 3 }, 77)
  // What the broker sets, and the largest time, which the golden batch claims to be later. The CRC covers it.
  const same = (b: Uint8Array) => Buffer.concat([b.subarray(8, 12), b.subarray(16, 17), b.subarray(21, 35), b.subarray(43)])
  assert.deepEqual(same(got), same(want))
})

test('what is written is read, in every codec', async () => {
  const random = generator(7)
  const noise = new Uint8Array(300_000).map(() => random(256))
  const words = ['the same ', 'again ', 'ä', '0', ', ', 'and something that is longer than the others; ']
  const texts = new TextEncoder().encode(Array.from({ length: 40_000 }, () => words[random(words.length)]).join(''))
  // Runs of noise between repetitions of every length and from every distance.
  const mixed = noise.slice()
  for (let at = 1; at < mixed.length; at += random(400)) mixed.copyWithin(at, Math.max(0, at - 1 - random(1 << random(18))), at + random(1 << random(9)))
  for (const codec of codecNames) {
    for (const size of [0, 1, 4, 11, 12, 13, 59, 60, 61, 255, 256, 257, 4095, 4096, 65535, 65536, 65537, 131071, 131072, 131073, 300_000]) {
      for (const value of [new Uint8Array(size), noise.subarray(0, size), texts.subarray(0, size), mixed.subarray(0, size)]) {
        const [b] = await decodeBatches(await encodeBatch([{ value }, { value: null, timestamp: 5 }], codec), 't', 0)
        const [one, two] = [...b.records]
        assert.ok(Buffer.compare(one.value!, value) === 0, `${codec}, ${size} bytes`)
        assert.deepEqual([two.value, two.timestamp], [null, 5])
      }
    }
    const [small, large] = [await encodeBatch([{ value: texts }], codec), await encodeBatch([{ value: noise }], codec)]
    if (codec !== 'none') assert.ok(small.length < texts.length / 2, `${codec}: ${small.length} of ${texts.length}`)
    assert.ok(large.length < noise.length * 1.001 + 200, `${codec}: ${large.length} of ${noise.length}`)
    console.log(`# ${codec}: ${texts.length} bytes of words become ${small.length}`)
  }
})

test('what decompresses to more than allowed is refused', async () => {
  for (const c of codecs) {
    if (c.codec === 0) continue
    await assert.rejects(decodeBatches(bytesOf(c.set), 't', 0, 0n, new Room(5000)), (e: KafkaError) => e.name === 'MESSAGE_TOO_LARGE', c.name)
  }
})

function generator(state: number): (n: number) => number {
  return n => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    return Math.floor((state / 2 ** 32) * n)
  }
}

// Mutations: a number of bytes is changed, some runs are cut out or doubled.
function* mutated(seeds: Uint8Array[], count: number): Generator<[number, Uint8Array]> {
  const random = generator(12345)
  for (let i = 0; i < count; i++) {
    const which = random(seeds.length)
    let b = Uint8Array.from(seeds[which])
    for (let n = random(4) + 1; n; n--) {
      const at = random(b.length)
      switch (random(5)) {
        case 0: b[at] = random(256); break
        case 1: b[at] ^= 1 << random(8); break
        case 2: b.fill([0, 0xff, 0x7f, 0x80][random(4)], at, at + 1 + random(8)); break
        case 3: b = b.slice(0, at); break
        case 4: b = new Uint8Array(Buffer.concat([b.subarray(0, at), b.subarray(random(b.length || 1))])); break
      }
      if (!b.length) b = Uint8Array.of(random(256))
    }
    yield [which, b]
  }
}

test('100,000 mutated answers and 30,000 batches: no error but the client\'s own, no hang, bounded memory', async () => {
  const seeds: [Api<any, any>, Uint8Array][] = frames.flatMap(f => {
    const api = apis.find(a => a.key === f.key)!
    return f.responses.map(r => [api, bytesOf(r)] as [Api<any, any>, Uint8Array])
  })
  // What members of groups tell each other comes through the cluster unread.
  for (const codec of [Subscription, Assignment]) {
    const w = new Writer()
    codec.write(w, { version: 1, topics: codec === Subscription ? ['a', 'bc'] : [{ topic: 'a', partitions: [1, 2] }], userData: Uint8Array.of(1) } as never)
    seeds.push([{ key: 0, version: 0, flexible: false, request: codec, response: codec } as Api<any, any>, w.done()])
  }
  let read = 0
  let slowest = 0
  const before = process.memoryUsage().rss
  for (const [which, b] of mutated(seeds.map(s => s[1]), 100_000)) {
    const began = performance.now()
    try {
      decodeAnswer(seeds[which][0], b)
      read++
    } catch (e) {
      if (!(e instanceof KafkaError)) throw e
    }
    slowest = Math.max(slowest, performance.now() - began)
  }
  assert.ok(read > 1000, `${read} were read nevertheless`)
  // Batches: with the checksum put right, so that what lies behind it is reached.
  const { crc32c } = await import('../src/crc32c.js')
  read = 0
  for (const [which, b] of mutated(codecs.map(c => bytesOf(c.set)), 30_000)) {
    if (b.length > 61) {
      const v = new DataView(b.buffer)
      if (which % 2) v.setInt32(8, b.length - 12)
      v.setUint32(17, crc32c(b.subarray(21, Math.min(b.length, 12 + Math.max(49, v.getInt32(8))))))
    }
    const began = performance.now()
    try {
      for (const batch of await decodeBatches(b, 't', 0, 0n, new Room(1 << 20))) for (const r of batch.records) read += r.value ? 1 : 0
    } catch (e) {
      if (!(e instanceof KafkaError)) throw e
    }
    slowest = Math.max(slowest, performance.now() - began)
  }
  assert.ok(read > 1000, `${read} records were read nevertheless`)
  console.log(`# the slowest of the mutated took ${slowest.toFixed(1)} ms`)
  assert.ok(slowest < 5000, `${slowest} ms`)
  assert.ok(process.memoryUsage().rss - before < 400 << 20)
})
