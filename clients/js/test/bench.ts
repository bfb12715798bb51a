// How many records a second are fetched, checked and decoded, from one node on this machine. Fails below what is promised.
import { Admin } from '../src/admin.js'
import type { Compression } from '../src/index.js'
import { Cluster } from './cluster.js'

const total = 300_000
const promised = 50_000
const cluster = await Cluster.start(1)
const client = cluster.client()
// Text of 100 bytes, no two the same.
const valueOf = (n: number): string => `{"id":${String(n).padStart(8, '0')},"name":"record ${n}","at":"the same place as before"}`.padEnd(100, '.')
const rate = (began: number): [number, string] => {
  const r = Math.round(total / ((performance.now() - began) / 1000))
  return [r, `${r.toLocaleString('en')} records/s`]
}
let slow = false
for (const compression of ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as Compression[]) {
  const topic = 'bench-' + compression
  await new Admin(client).createTopics([{ topic, partitions: 1 }])
  const producer = client.producer({ compression })
  let began = performance.now()
  for (let n = 0; n < total; n += 20_000) {
    await producer.send(topic, Array.from({ length: Math.min(20_000, total - n) }, (_, i) => ({ value: valueOf(n + i) })))
  }
  console.log(compression.padEnd(6), 'written', rate(began)[1])
  let best = 0
  for (let run = 0; run < 3; run++) {
    began = performance.now()
    let n = 0
    for await (const r of client.tail({ topics: topic, from: 'earliest', until: 'end' })) n += r.value!.length / 100
    if (n !== total) throw new Error(`${n} of ${total} records`)
    const [r, text] = rate(began)
    best = Math.max(best, r)
    console.log(compression.padEnd(6), 'fetched', text)
  }
  slow ||= best < promised
}
client.close()
await cluster.end()
if (slow) throw new Error(`below ${promised.toLocaleString('en')} records/s`)
