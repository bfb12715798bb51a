// The client against gateways that are slow, hostile or broken.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { Admin } from '../src/admin.js'
import { Fetch, Metadata } from '../src/apis.js'
import { Writer } from '../src/bytes.js'
import { crc32c } from '../src/crc32c.js'
import { Client, KafkaError, type ClientOptions, type ConsumedRecord, type TailOptions } from '../src/index.js'
import { encodeBatch } from '../src/records.js'
import type { Api } from '../src/schema.js'
import { answerBytes, fakeGateway, type FakeSocket } from './fake.js'

const connect = (answer: (api: Api<any, any>, request: any, socket: FakeSocket) => unknown, o: Partial<ClientOptions> = {}): Client =>
  new Client({ gateways: ['ws://fake/'], WebSocket: fakeGateway(answer), ...o })
const named = (name: string) => (e: unknown): boolean => e instanceof KafkaError && e.name === name
const data = (name: string) => JSON.parse(readFileSync(new URL(`../../test/testdata/${name}`, import.meta.url), 'utf8'))
const bytesOf = (s: string): Uint8Array => new Uint8Array(Buffer.from(s, 'base64'))

/** An answer to Fetch with the batches of some partitions of topic t. */
const fetched = (parts: { partition: number; records: Uint8Array | null; errorCode?: number }[]) => ({
  throttleMs: 0, errorCode: 0, sessionId: 0,
  topics: [{
    topic: 't',
    partitions: parts.map(p => ({
      errorCode: 0, highWatermark: 100n, lastStableOffset: 100n, logStartOffset: 0n, abortedTransactions: null, preferredReadReplica: -1, ...p,
    })),
  }],
})

const at = async (base: number, value: Uint8Array | string, codec: 'none' | 'gzip' = 'none'): Promise<Uint8Array> => {
  const b = await encodeBatch([{ value }], codec)
  new DataView(b.buffer, b.byteOffset).setBigInt64(0, BigInt(base))
  return b
}

test('what transactions aborted is left out of read_committed, markers always are', async () => {
  const all = [...data('transactions.json'), ...data('kafka-transactions.json')]
  for (const f of all as { from: number; end: number; response: string; uncommitted: number[]; committed: number[] }[]) {
    for (const isolation of [undefined, 'read_uncommitted', 'read_committed'] as const) {
      const level = isolation === 'read_committed' ? 1 : 0
      const client = connect(({ key }, request) => {
        if (key === 2) {
          assert.equal(request.isolationLevel, level)
          return { throttleMs: 0, topics: [{ topic: 't', partitions: [{ partition: 0, errorCode: 0, timestamp: -1n, offset: BigInt(f.end), leaderEpoch: 0 }] }] }
        }
        if (key === 1) {
          assert.equal(request.isolationLevel, level)
          return bytesOf(f.response)
        }
        return undefined
      })
      const got: number[] = []
      const options: TailOptions = { topics: 't', partitions: [0], from: { offset: BigInt(f.from) }, until: 'end', isolation }
      for await (const r of client.tail(options)) got.push(Number(r.offset))
      assert.deepEqual(got, level ? f.committed : f.uncommitted, `from ${f.from}, ${isolation}`)
      client.close()
    }
  }
})

test('a call ends when its time is over, whatever hangs', async () => {
  const silent = connect(({ key }) => (key === 18 ? undefined : new Promise(() => {})))
  await assert.rejects(silent.metadata([], { timeoutMs: 50 }), named('REQUEST_TIMED_OUT'))
  await assert.rejects(silent.producer().send('t', { value: 'x' }, { timeoutMs: 50 }), named('REQUEST_TIMED_OUT'))
  await assert.rejects(new Admin(silent).deleteTopics(['t'], { timeoutMs: 50 }), named('REQUEST_TIMED_OUT'))
  silent.close()
  // Nor does a token that never comes hold a connection for ever.
  let asked = 0
  const token = (): Promise<string> => {
    asked++
    return new Promise(() => {})
  }
  const login = connect(({ key }) => (key === 17 ? { errorCode: 0, mechanisms: [] } : undefined), {
    sasl: { mechanism: 'OAUTHBEARER', token }, connectTimeoutMs: 50,
  })
  await assert.rejects(login.metadata([], { timeoutMs: 1000 }), (e: KafkaError) => e.retriable)
  assert.ok(asked > 1, 'it has tried again')
  login.close()
})

test('what one partition cannot give is told when the others have given theirs', async () => {
  const good = await at(0, 'good')
  const bad = await at(0, 'bad')
  bad[70] ^= 1
  let n = 0
  const client = connect(({ key }, request) => {
    if (key !== 1) return undefined
    return fetched(request.topics[0].partitions.map((p: any) =>
      p.partition ? { partition: 1, records: bad } : { partition: 0, records: p.fetchOffset === 0n ? good : null }))
  })
  const got: ConsumedRecord[] = []
  await assert.rejects(async () => {
    for await (const r of client.tail({ topics: 't', partitions: [0, 1], from: { offset: 0n } })) {
      n++
      got.push(r)
    }
  }, named('CORRUPT_MESSAGE'))
  assert.deepEqual(got.map(r => [r.partition, r.offset]), [[0, 0n]])
  client.close()
})

test('batches in front of one that cannot be read are given, and an error that stays is not asked for again for ever', async () => {
  const bad = await at(1, 'bad', 'gzip')
  bad.fill(0xff, 61)
  new DataView(bad.buffer, bad.byteOffset).setUint32(17, crc32c(bad.subarray(21)))
  const both = new Uint8Array([...(await at(0, 'good')), ...bad])
  let asked = 0
  const client = connect(({ key }) => (key === 1 && ++asked ? fetched([{ partition: 0, records: both }]) : undefined))
  const got: bigint[] = []
  await assert.rejects(async () => {
    for await (const r of client.tail({ topics: 't', partitions: [0], from: { offset: 0n } })) got.push(r.offset)
  }, named('CORRUPT_MESSAGE'))
  assert.deepEqual(got, [0n])
  assert.equal(asked, 4)
  client.close()
})

test('partitions for which an answer has no room are asked for again, one that never fits is an error', async () => {
  const large = new Uint8Array(6000)
  const sets = await Promise.all([0, 1, 2].map(() => at(0, large, 'gzip')))
  let asked = 0
  const answer = ({ key }: { key: number }, request: any): unknown => {
    if (key !== 1) return undefined
    asked++
    return fetched(request.topics[0].partitions.map((p: any) => ({ partition: p.partition, records: p.fetchOffset === 0n ? sets[p.partition] : null })))
  }
  const client = connect(answer, { maxDecompressedBytes: 10_000 })
  const seen = new Set<number>()
  for await (const r of client.tail({ topics: 't', partitions: [0, 1, 2], from: { offset: 0n } })) {
    seen.add(r.partition)
    if (seen.size === 3) break
  }
  assert.ok(asked >= 3)
  client.close()
  const small = connect(answer, { maxDecompressedBytes: 5000 })
  await assert.rejects(small.tail({ topics: 't', partitions: [0], from: { offset: 0n } }).next(), named('MESSAGE_TOO_LARGE'))
  small.close()
})

test('an answer of text, or of more elements than can be kept, ends the connection and costs nothing', async () => {
  const text = connect(({ key }, _, socket) => (key === 3 ? socket.deliver('4000000000') : undefined))
  const before = process.memoryUsage().rss
  await assert.rejects(text.metadata([], { timeoutMs: 300 }), named('CORRUPT_MESSAGE'))
  text.close()
  // 24 MB of brokers without a host, or of tagged fields without a value.
  const none = answerBytes(Metadata, { throttleMs: 0, brokers: [], clusterId: null, controllerId: 0, topics: [] })
  for (const [count, each] of [[2_200_000, Uint8Array.of(0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)], [2_200_000, Uint8Array.of(0, 0)]] as const) {
    const w = new Writer(false, 48 << 20)
    if (each.length > 2) w.raw(none.subarray(0, 5))
    w.uvarint(each.length > 2 ? count + 1 : count)
    const whole = new Uint8Array(count * each.length)
    for (let at = 0; at < whole.length; at += each.length) whole.set(each, at)
    w.raw(whole)
    const client = connect(({ key }) => (key === 3 ? w.done() : undefined))
    await assert.rejects(client.metadata([], { timeoutMs: 2000 }), named('MESSAGE_TOO_LARGE'))
    client.close()
  }
  assert.ok(process.memoryUsage().rss - before < 1 << 30)
})

test('a connection that is lost between an answer and the next question is made again', async () => {
  let n = 0
  const urls = new Set<string>()
  const client = connect(({ key }, _, socket) => {
    if (key !== 3) return undefined
    urls.add(socket.url)
    if (++n % 2) return void socket.lose()
    return { throttleMs: 0, brokers: [], clusterId: 'fake', controllerId: 1, topics: [] }
  }, { gateways: ['ws://a/', 'ws://b/', 'ws://c/'] })
  for (let i = 0; i < 6; i++) await client.metadata([])
  assert.deepEqual([...urls].sort(), ['ws://a/', 'ws://b/', 'ws://c/'])
  client.close()
})

test('a producer that was made ready sends with one request, on the connection that it has', async () => {
  const asked: number[] = []
  let sockets = 0
  let last: FakeSocket | undefined
  const client = connect((api, request, socket) => {
    if (socket !== last) sockets++
    last = socket
    asked.push(api.key)
    if (api.key === 3) {
      const partition = { errorCode: 0, partition: 0, leaderId: 1, leaderEpoch: 1, replicas: [1], isr: [1], offlineReplicas: [] }
      assert.equal(request.allowAutoTopicCreation, false)
      return {
        throttleMs: 0, brokers: [], clusterId: null, controllerId: 1,
        topics: [{ errorCode: 0, topic: 't', topicId: new Uint8Array(16), isInternal: false, partitions: [partition], authorizedOperations: 0 }],
      }
    }
    if (api.key === 22) return { throttleMs: 0, errorCode: 0, producerId: 7n, producerEpoch: 0 }
    if (api.key !== 0) return undefined
    const written = { partition: 0, errorCode: 0, baseOffset: 0n, logAppendTime: -1n, logStartOffset: 0n, recordErrors: [], errorMessage: null }
    return { topics: [{ topic: 't', partitions: [written] }], throttleMs: 0 }
  })
  const producer = client.producer()
  await producer.ready('t')
  assert.ok(asked.includes(3) && asked.includes(22))
  asked.length = 0
  last = undefined
  sockets = 0
  await producer.send('t', { value: 'x' })
  assert.deepEqual([asked, sockets], [[0], 1])
  client.close()
})

test('1,000 sessions with gateways that send what is mutated end', async () => {
  let state = 99
  const random = (n: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * n)
  }
  const golden = data('frames.json') as { key: number; responses: string[] }[]
  const records = bytesOf(data('codecs.json')[0].set)
  let failed = 0
  const session = async (): Promise<void> => {
    const client = connect(async (api, _, socket) => {
      let b = api.key === 1 && random(2)
        ? answerBytes(Fetch, fetched([{ partition: 0, records }]))
        : bytesOf(golden.find(f => f.key === api.key)!.responses[random(2)])
      if (api.key === 18 && random(4)) return undefined
      for (let n = random(3); n > 0; n--) {
        const at = random(b.length)
        if (random(8)) b[at] = random(256)
        else b = b.slice(0, at)
      }
      if (!random(50)) return void socket.lose()
      return b
    }, { timeoutMs: 200, requestTimeoutMs: 100, connectTimeoutMs: 100 })
    const ends = async (p: Promise<unknown>): Promise<void> => {
      await p.catch(e => {
        failed++
        if (!(e instanceof KafkaError) && !(e instanceof DOMException)) throw e
      })
    }
    const signal = AbortSignal.timeout(300)
    await Promise.all([
      ends(client.metadata(['t'])),
      ends(client.listOffsets('t', 'latest', [0])),
      ends(new Admin(client).describeGroups(['g'])),
      ends(client.tail({ topics: 't', partitions: [0], from: { offset: 1000n }, signal }).next()),
    ])
    client.close()
  }
  for (let i = 0; i < 10; i++) await Promise.all(Array.from({ length: 100 }, session))
  assert.ok(failed > 1000)
})
