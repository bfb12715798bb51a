// What a program that uses the package sees of its declarations: compiled with nothing skipped.
import { Client, KafkaError, type ConsumedRecord, type Sasl } from 'trimaran'
import { Admin } from 'trimaran/admin'
import { Group, type GroupOptions } from 'trimaran/group'

const sasl: Sasl = { mechanism: 'PLAIN', username: 'u', password: 'p' }
const client = new Client({ gateways: ['ws://127.0.0.1:9093/'], sasl })
const options: GroupOptions = { groupId: 'g', topics: ['t'], maxWaitMs: 100, maxBytes: 1 << 20, from: 'earliest' }

export async function use(): Promise<bigint> {
  const [{ offset }] = await client.producer({ compression: 'gzip' }).send('t', { value: 'x', headers: { a: null } })
  for await (const r of client.tail({ topics: 't', from: { offset }, maxBytes: 1000 })) return (r satisfies ConsumedRecord).offset
  for await (const r of new Group(client, options)) if (r.value === null) break
  const topics = await new Admin(client).listTopics()
  const name: string | null = topics[0].topic
  if (name === 'x') throw new KafkaError(3)
  return offset
}
