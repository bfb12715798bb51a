// A real cluster whose clients log in and may do what ACLs allow.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Admin, type Acl } from '../src/admin.js'
import { Group } from '../src/group.js'
import { KafkaError, type Client, type Sasl } from '../src/index.js'
import { Cluster } from './cluster.js'

let cluster: Cluster
let client: Client
let admin: Admin
before(async () => {
  cluster = await Cluster.start(1, '--sasl-mechanisms', 'SCRAM-SHA-512,SCRAM-SHA-256', '--authorize', '--super-users', 'User:admin')
  cluster.tool(0, ['user', 'create', 'admin', '--password-stdin'], 'admin-pä§§=,wörd\n')
  client = as('admin', 'admin-pä§§=,wörd')
  admin = new Admin(client)
})
after(async () => {
  client.close()
  await cluster.end()
})

const as = (username: string, password: string, mechanism: 'SCRAM-SHA-256' | 'SCRAM-SHA-512' = 'SCRAM-SHA-512'): Client =>
  cluster.client(0, { sasl: { mechanism, username, password } })
const named = (name: string) => (e: unknown): boolean => {
  assert.ok(e instanceof KafkaError)
  assert.equal(e.name, name)
  return true
}
// Kafka's numbers: resource 2 topic, 3 group; pattern 3 literal, 4 prefixed; operation 3 read, 4 write; permission 3 allow.
const allow = (resourceType: number, resourceName: string, operation: number, patternType = 3): Acl =>
  ({ resourceType, resourceName, patternType, principal: 'User:alice', host: '*', operation, permissionType: 3 })
const any = { resourceType: 1, resourceName: null, patternType: 1, principal: null, host: null, operation: 1, permissionType: 1 }

test('users are made, log in by both mechanisms, with and without crypto.subtle, and are gone when they are deleted', async () => {
  const mechanisms = ['SCRAM-SHA-256', 'SCRAM-SHA-512'] as const
  for (const mechanism of mechanisms) await admin.upsertUser('alice', 'first', { mechanism })
  await admin.upsertUser('alice', 'second', { mechanism: 'SCRAM-SHA-256', iterations: 4096 })
  const [{ credentials }] = await admin.describeUsers(['alice'])
  assert.deepEqual(credentials.map(c => [c.mechanism, c.iterations]), [[1, 4096], [2, 8192]])
  const all: [Sasl['mechanism'], string][] = [['SCRAM-SHA-256', 'second'], ['SCRAM-SHA-512', 'first']]
  const secure = Object.getOwnPropertyDescriptor(globalThis, 'crypto')!
  for (const insecure of [false, true]) {
    if (insecure) {
      const { getRandomValues } = crypto
      Object.defineProperty(globalThis, 'crypto', { configurable: true, value: { getRandomValues: getRandomValues.bind(crypto) } })
    }
    try {
      for (const [mechanism, password] of all) {
        const alice = as('alice', password, mechanism as 'SCRAM-SHA-256')
        assert.ok((await alice.metadata([])).clusterId)
        alice.close()
      }
    } finally {
      Object.defineProperty(globalThis, 'crypto', secure)
    }
  }
  const wrong = as('alice', 'first', 'SCRAM-SHA-256')
  await assert.rejects(wrong.metadata([]), named('SASL_AUTHENTICATION_FAILED'))
  wrong.close()
  const plain = cluster.client(0, { sasl: { mechanism: 'PLAIN', username: 'alice', password: 'first' } })
  await assert.rejects(plain.metadata([]), named('UNSUPPORTED_SASL_MECHANISM'))
  plain.close()
  for (const mechanism of mechanisms) await admin.deleteUser('alice', mechanism)
  await assert.rejects(admin.describeUsers(['alice']), named('RESOURCE_NOT_FOUND'))
  const gone = as('alice', 'first')
  await assert.rejects(gone.metadata([]), named('SASL_AUTHENTICATION_FAILED'))
  gone.close()
})

test('what ACLs do not allow is refused by its name, what they allow is done', async () => {
  await admin.upsertUser('alice', 'password', { mechanism: 'SCRAM-SHA-512' })
  await admin.createTopics([{ topic: 'events', partitions: 1 }, { topic: 'other', partitions: 1 }])
  const alice = as('alice', 'password')
  const write = () => alice.producer().send('events', { value: 'x' })
  const read = () => alice.tail({ topics: 'events', from: 'earliest', until: 'end' }).next()
  const member = () => new Group(alice, { groupId: 'alice-1', topics: 'events', from: 'earliest' })[Symbol.asyncIterator]()
  await assert.rejects(write(), named('TOPIC_AUTHORIZATION_FAILED'))
  await assert.rejects(read(), named('TOPIC_AUTHORIZATION_FAILED'))
  await assert.rejects(member().next(), named('GROUP_AUTHORIZATION_FAILED'))
  await assert.rejects(new Admin(alice).createTopics([{ topic: 'mine' }]), named('TOPIC_AUTHORIZATION_FAILED'))
  await assert.rejects(new Admin(alice).describeAcls(any), named('CLUSTER_AUTHORIZATION_FAILED'))
  await assert.rejects(new Admin(alice).upsertUser('alice', 'x'), named('CLUSTER_AUTHORIZATION_FAILED'))

  const acls = [allow(2, 'events', 3), allow(2, 'events', 4), allow(3, 'alice-', 3, 4)]
  await admin.createAcls(acls)
  const sorted = (all: Acl[]) => [...all].sort((a, b) => a.resourceType - b.resourceType || a.operation - b.operation)
  assert.deepEqual(sorted(await admin.describeAcls(any)), acls)
  await write()
  assert.equal((await read()).value?.offset, 0n)
  const reading = member()
  assert.equal((await reading.next()).value?.offset, 0n)
  await reading.return()
  const bits = (await new Admin(alice).describeTopics(['events']))[0].authorizedOperations
  assert.deepEqual([3, 4, 6].map(op => (bits >> op) & 1), [1, 1, 0])
  assert.deepEqual(await new Admin(alice).listTopics().then(all => all.map(t => t.topic)), ['events'])

  assert.equal((await admin.deleteAcls([{ ...any, resourceType: 2 }])).length, 2)
  assert.deepEqual(await admin.describeAcls(any), acls.slice(2))
  await assert.rejects(write(), named('TOPIC_AUTHORIZATION_FAILED'))
  alice.close()
})
