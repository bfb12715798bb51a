import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { KafkaError, type Compression, type ConsumedRecord } from '../src/index.js'
import { Admin } from '../src/admin.js'
import { Group } from '../src/group.js'
import { Cluster } from './cluster.js'

let cluster: Cluster
before(async () => {
  cluster = await Cluster.start()
})
after(() => cluster.end())

const text = (b: Uint8Array | null): string | null => b && Buffer.from(b).toString()

async function readAll(topic: string): Promise<ConsumedRecord[]> {
  const client = cluster.client(1)
  const all: ConsumedRecord[] = []
  for await (const r of client.tail({ topics: topic, from: 'earliest', until: 'end' })) all.push(r)
  client.close()
  return all
}

test('records come back as they were written, in every codec', async () => {
  const client = cluster.client()
  for (const compression of ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as Compression[]) {
    const topic = 'codec-' + compression
    await new Admin(client).createTopics([{ topic, partitions: 1, replicationFactor: 3 }])
    const producer = client.producer({ compression })
    const big = 'x'.repeat(100_000)
    const written = await producer.send(topic, [
      { key: 'k', value: 'v', headers: { a: 'b', none: null } },
      { value: null, key: 'tombstone', timestamp: 1234567890123 },
      { value: 'no key', headers: [{ key: 'twice', value: new Uint8Array([1]) }, { key: 'twice', value: new Uint8Array() }] },
      { value: '' },
      { value: big },
    ])
    assert.deepEqual(written.map(w => w.offset), [0n, 1n, 2n, 3n, 4n])
    const all = await readAll(topic)
    assert.deepEqual(all.map(r => r.offset), [0n, 1n, 2n, 3n, 4n])
    assert.deepEqual(all.map(r => text(r.key)), ['k', 'tombstone', null, null, null])
    assert.deepEqual(all.map(r => text(r.value)), ['v', null, 'no key', '', big])
    assert.deepEqual(all[0].headers.map(h => [h.key, text(h.value)]), [['a', 'b'], ['none', null]])
    assert.equal(all[2].headers.length, 2)
    assert.equal(all[1].timestamp, 1234567890123)
    assert.ok(Math.abs(all[0].timestamp - Date.now()) < 60_000)
    await producer.close()
  }
  client.close()
})

test('a topic that is not there is an error by its name', async () => {
  const client = cluster.client()
  await assert.rejects(client.producer().send('nothing', { value: 'x' }), (e: KafkaError) => e.name === 'UNKNOWN_TOPIC_OR_PARTITION' && e.code === 3)
  client.close()
})

test('kill -9 of the node that a tail reads from: it goes on within 3 s, none of 10,000 messages twice or missing', async () => {
  const topic = 'numbers'
  const client = cluster.client()
  await new Admin(client).createTopics([{ topic, partitions: 2, replicationFactor: 3 }])
  const total = 10_000
  // The writer begins at the node that dies, too.
  const producer = client.producer()
  const events: string[] = []
  const reader = cluster.client(0, { onEvent: e => events.push(e.type) })
  const stop = new AbortController()
  let killed = 0
  let silent = 0
  const seen = new Map<number, number>()
  const order = new Map<number, number>()
  const reading = (async () => {
    let last = Date.now()
    for await (const r of reader.tail({ topics: topic, from: 'earliest', signal: stop.signal })) {
      const n = Number(text(r.value))
      seen.set(n, (seen.get(n) ?? 0) + 1)
      assert.ok(n > (order.get(r.partition) ?? -1), 'in order')
      order.set(r.partition, n)
      if (killed) silent = Math.max(silent, Date.now() - Math.max(last, killed))
      last = Date.now()
      if (seen.size === total) break
    }
  })()
  let sent = 0
  const sends: Promise<unknown>[] = []
  while (sent < total) {
    sends.push(producer.send(topic, Array.from({ length: 50 }, () => ({ value: String(sent), partition: sent++ % 2 }))))
    if (sent === total / 2) {
      while (seen.size < 1000) await new Promise(done => setTimeout(done, 5))
      killed = Date.now()
      cluster.kill(0)
    }
    if (sends.length % 5 === 0) await new Promise(done => setTimeout(done, 10))
  }
  await Promise.all(sends)
  const timer = setTimeout(() => stop.abort(new Error(`${seen.size} of ${total} came`)), 60_000)
  await reading
  clearTimeout(timer)
  assert.deepEqual([seen.size, [...seen.values()].filter(n => n !== 1)], [total, []])
  assert.ok(events.includes('lost'))
  const all = await readAll(topic)
  assert.equal(all.length, total, 'what was sent again is in the log once')
  console.log(`# silent for ${silent} ms after the kill`)
  assert.ok(silent < 3000, `silent for ${silent} ms`)
  reader.close()
  client.close()
  cluster.run(0)
  await cluster.ready()
})

test('a node that hangs is left for another within 8 s, and no message comes twice or is missing', async () => {
  const topic = 'hanging'
  const client = cluster.client(1)
  await new Admin(client).createTopics([{ topic, partitions: 1, replicationFactor: 3 }])
  const reader = cluster.client(0)
  const stop = new AbortController()
  const timer = setTimeout(() => stop.abort(new Error('nothing came')), 60_000)
  const tail = reader.tail({ topics: topic, from: 'earliest', signal: stop.signal })
  // The writer's node does not hang, though its partition may have to find another leader.
  const producer = client.producer()
  let sent = 0
  const write = () => producer.send(topic, { value: String(sent++) })
  await write()
  assert.equal(text((await tail.next()).value!.value), '0')
  const next = tail.next()
  cluster.pause(0)
  const began = Date.now()
  try {
    await write()
    assert.equal(text((await next).value!.value), '1')
    const silent = Date.now() - began
    console.log(`# silent for ${silent} ms when the node hangs`)
    assert.ok(silent < 8000, `silent for ${silent} ms`)
  } finally {
    cluster.resume(0)
  }
  for (let n = 2; n < 10; n++) {
    await write()
    assert.equal(text((await tail.next()).value!.value), String(n))
  }
  clearTimeout(timer)
  await tail.return()
  reader.close()
  client.close()
  await cluster.ready()
})

test('two members of a group share its partitions, and what one leaves the other goes on with', async () => {
  const topic = 'shared'
  const client = cluster.client()
  await new Admin(client).createTopics([{ topic, partitions: 4, replicationFactor: 3 }])
  const producer = client.producer()
  const write = (from: number, to: number) =>
    producer.send(topic, Array.from({ length: to - from }, (_, i) => ({ value: String(from + i), partition: (from + i) % 4 })))
  await write(0, 400)
  const got: { member: string; n: number }[] = []
  const has: Record<string, number[]> = {}
  const member = (name: string) => {
    const stop = new AbortController()
    const client = cluster.client(name === 'a' ? 1 : 2)
    const group = new Group(client, {
      groupId: 'pair', topics: topic, from: 'earliest', signal: stop.signal, autoCommitMs: 200, sessionTimeoutMs: 6000,
      onAssigned: p => void (has[name] = p.map(x => x.partition)),
      onRevoked: () => void (has[name] = []),
    })
    const run = (async () => {
      for await (const r of group) got.push({ member: name, n: Number(text(r.value)) })
    })().catch(e => {
      if (!stop.signal.aborted) throw e
    })
    return { end: async () => { stop.abort(); await run; client.close() } }
  }
  const until = async (what: string, f: () => boolean): Promise<void> => {
    for (const end = Date.now() + 40_000; !f(); ) {
      if (Date.now() > end) throw new Error(`${what}: ${JSON.stringify(has)}, ${got.length} records`)
      await new Promise(done => setTimeout(done, 20))
    }
  }
  const distinct = (): number => new Set(got.map(g => g.n)).size
  const a = member('a')
  await until('one member reads all', () => distinct() === 400)
  assert.deepEqual(has.a, [0, 1, 2, 3])
  const b = member('b')
  await until('two share', () => has.a?.length === 2 && has.b?.length === 2)
  assert.deepEqual([...has.a, ...has.b].sort(), [0, 1, 2, 3])
  await write(400, 800)
  await until('both read', () => distinct() === 800)
  assert.deepEqual(new Set(got.filter(g => g.n >= 400).map(g => g.member)), new Set(['a', 'b']))
  const [described] = await new Admin(client).describeGroups(['pair'])
  assert.equal(described.state, 'Stable')
  assert.deepEqual(described.members.flatMap(m => m.partitions.flatMap(p => p.partitions)).sort(), [0, 1, 2, 3])
  await a.end()
  await until('one has all again', () => has.b?.length === 4)
  await write(800, 1000)
  await until('the other goes on', () => distinct() === 1000)
  await b.end()
  // Both committed when they left, so nothing came twice.
  assert.equal(got.length, 1000)
  const offsets = await new Admin(client).groupOffsets('pair')
  assert.equal(offsets.reduce((n, o) => n + o.offset, 0n), 1000n)
  await new Admin(client).setGroupOffsets('pair', [{ topic, partition: 0, offset: 7n }])
  assert.equal((await new Admin(client).groupOffsets('pair')).find(o => o.partition === 0)!.offset, 7n)
  assert.ok((await new Admin(client).listGroups()).some(g => g.groupId === 'pair'))
  await new Admin(client).deleteGroupOffsets('pair', [{ topic, partition: 1 }])
  await new Admin(client).deleteGroups(['pair'])
  client.close()
})

test('topics, configurations and offsets are administered', async () => {
  const client = cluster.client()
  const topic = 'administered'
  const admin = new Admin(client)
  await admin.createTopics([{ topic, partitions: 1, replicationFactor: 3, configs: { 'retention.ms': '1000000' } }])
  await assert.rejects(admin.createTopics([{ topic }]), (e: KafkaError) => e.name === 'TOPIC_ALREADY_EXISTS')
  await admin.createPartitions(topic, 3)
  assert.deepEqual(await client.partitions(topic), [0, 1, 2])
  await admin.alterConfigs({ type: 'topic', name: topic }, { 'retention.bytes': '12345', 'retention.ms': null })
  const [{ configs }] = await admin.describeConfigs([{ type: 'topic', name: topic }], { documentation: true })
  assert.equal(configs.find(c => c.name === 'retention.bytes')!.value, '12345')
  assert.notEqual(configs.find(c => c.name === 'retention.ms')!.value, '1000000')
  const producer = client.producer()
  for (const timestamp of [1000, 3000, 2000]) await producer.send(topic, { value: 'x', partition: 0, timestamp })
  assert.deepEqual((await client.listOffsets(topic, 'latest')).get(0)!.offset, 3n)
  assert.deepEqual((await client.listOffsets(topic, 'earliest', [0])).get(0)!.offset, 0n)
  assert.deepEqual((await client.listOffsets(topic, 1500, [0])).get(0), { offset: 1n, timestamp: 3000 })
  assert.deepEqual((await client.listOffsets(topic, 'maxTimestamp', [0])).get(0), { offset: 1n, timestamp: 3000 })
  assert.deepEqual(await admin.deleteRecords([{ topic, partition: 0, offset: 2n }]), [{ topic, partition: 0, offset: 2n }])
  // A tail from what is gone fails, unless it is told where to go on.
  const from = { offset: 0n }
  // A node that was away may still serve what it has, and each tail may be at another one.
  const first = async (reset?: 'earliest'): Promise<unknown> => {
    const tail = client.tail({ topics: topic, partitions: [0], from, reset })
    return tail.next().then(r => (r.value as ConsumedRecord).offset, e => e.name).finally(() => tail.return())
  }
  const until = async (what: unknown, reset?: 'earliest'): Promise<void> => {
    let got
    for (const end = Date.now() + 10_000; (got = await first(reset)) !== what; ) assert.ok(Date.now() < end, `it is ${got}, not ${what}`)
  }
  await until('OFFSET_OUT_OF_RANGE')
  await until(2n, 'earliest')
  assert.ok((await admin.listTopics()).some(t => t.topic === topic))
  assert.ok((await admin.describeTopics([topic]))[0].authorizedOperations !== 0)
  assert.ok((await admin.describeCluster()).clusterId)
  assert.equal((await admin.status()).nodes.length, 3)
  const any = { resourceType: 1, resourceName: null, patternType: 1, principal: null, host: null, operation: 1, permissionType: 1 }
  await assert.rejects(admin.describeAcls(any), (e: KafkaError) => e.name === 'SECURITY_DISABLED')
  assert.deepEqual(await admin.describeUsers(), [])
  await admin.upsertUser('u', 'p')
  assert.equal((await admin.describeUsers(['u'])).length, 1)
  await admin.deleteUser('u', 'SCRAM-SHA-256')
  assert.deepEqual(await admin.describeUsers(), [])
  await admin.deleteTopics([topic])
  await assert.rejects(client.partitions(topic), (e: KafkaError) => e.name === 'UNKNOWN_TOPIC_OR_PARTITION')
  client.close()
})

test('what is aborted ends at once with its reason, and a slow reader holds the fetching back', async () => {
  const client = cluster.client()
  const topic = 'slow'
  await new Admin(client).createTopics([{ topic, partitions: 1, replicationFactor: 3 }])
  const value = new Uint8Array(10_000)
  await client.producer({ batchBytes: 50_000 }).send(topic, Array.from({ length: 400 }, () => ({ value })))
  const stop = new AbortController()
  const reason = new Error('enough')
  let bytes = 0
  class Counting extends (await import('ws')).WebSocket {
    constructor(url: string) {
      super(url)
      this.on('message', m => (bytes += (m as ArrayBuffer).byteLength))
    }
  }
  const reader = cluster.client(1, { WebSocket: Counting as never })
  const tail = reader.tail({ topics: topic, from: 'earliest', maxBytes: 100_000, signal: stop.signal })
  await tail.next()
  await new Promise(done => setTimeout(done, 1000))
  assert.ok(bytes < 500_000, `${bytes} bytes came for a reader that took one record`)
  for (let i = 1; i < 400; i++) await tail.next()
  const waiting = tail.next()
  stop.abort(reason)
  await assert.rejects(waiting, e => e === reason)
  const dead = AbortSignal.abort(reason)
  await assert.rejects(client.metadata([], { signal: dead }), e => e === reason)
  await assert.rejects(client.producer().send(topic, { value: 'x' }, { signal: dead }), e => e === reason)
  reader.close()
  client.close()
})

test('who closes the client ends its tails and groups, also those that nobody waits for', async () => {
  const client = cluster.client()
  const topic = 'closed'
  await new Admin(client).createTopics([{ topic, partitions: 1, replicationFactor: 3 }])
  await client.producer().send(topic, { value: 'x' })
  const tail = client.tail({ topics: topic, from: 'earliest' })
  await tail.next()
  const waiting = tail.next()
  await new Promise(done => setTimeout(done, 100))
  client.close()
  await assert.rejects(waiting, (e: KafkaError) => e.name === 'NETWORK_EXCEPTION' && !e.retriable)
  await assert.rejects(client.metadata(), (e: KafkaError) => !e.retriable)
})

test('what is sent again because an answer was lost is in the log once, in order', async () => {
  const topic = 'flaky'
  const plain = cluster.client()
  await new Admin(plain).createTopics([{ topic, partitions: 1, replicationFactor: 3 }])
  plain.close()
  let lost = 0
  let n = 0
  // Every fifth Produce goes out, and the connection breaks before its answer is seen, or before it arrives.
  class Flaky extends (await import('ws')).WebSocket {
    send(frame: Uint8Array): void {
      super.send(frame)
      if (frame[5] !== 0 || ++n % 5) return
      lost++
      this.removeAllListeners('message')
      if (lost % 2) setTimeout(() => this.terminate(), 30)
      else this.terminate()
    }
  }
  const client = cluster.client(0, { WebSocket: Flaky as never })
  const producer = client.producer({ compression: 'gzip' })
  const offsets: bigint[] = []
  for (let i = 0; i < 60; i++) {
    const written = await producer.send(topic, [0, 1, 2].map(k => ({ key: '日本語', value: String(i * 3 + k) })))
    offsets.push(...written.map(w => w.offset))
  }
  assert.ok(lost > 10)
  const all = await readAll(topic)
  assert.deepEqual(all.map(r => Number(text(r.value))), Array.from({ length: 180 }, (_, i) => i))
  assert.deepEqual(offsets, all.map(r => r.offset))
  client.close()
})
