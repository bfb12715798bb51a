// How many records a second are fetched, checked and decoded, from one node on this machine. Prints, asserts nothing.
import { Admin } from '../src/admin.js'
import { Cluster } from './cluster.js'

const total = 300_000
const cluster = await Cluster.start(1)
const client = cluster.client()
await new Admin(client).createTopics([{ topic: 'bench', partitions: 1 }])
const value = new Uint8Array(100).fill(120)
const producer = client.producer()
let began = performance.now()
const rate = (): string => `${Math.round(total / ((performance.now() - began) / 1000)).toLocaleString('en')} records/s`
for (let n = 0; n < total; n += 20_000) await producer.send('bench', Array.from({ length: 20_000 }, () => ({ value })))
console.log('written', rate())
for (let run = 0; run < 3; run++) {
  began = performance.now()
  let n = 0
  for await (const r of client.tail({ topics: 'bench', from: 'earliest', until: 'end' })) n += r.value!.length / 100
  if (n !== total) throw new Error(`${n} of ${total} records`)
  console.log('fetched', rate())
}
client.close()
await cluster.end()
