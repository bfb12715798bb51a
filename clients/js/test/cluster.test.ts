import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { KafkaError, type Compression, type ConsumedRecord } from '../src/index.js'
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

test('records come back as they were written, with every codec that is written', async () => {
  const client = cluster.client()
  for (const compression of ['none', 'gzip', 'snappy', 'lz4'] as Compression[]) {
    const topic = 'codec-' + compression
    await client.admin.createTopics([{ topic, partitions: 1, replicationFactor: 3 }])
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
