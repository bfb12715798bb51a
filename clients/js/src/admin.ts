// Administration: Kafka's own requests, thinly wrapped. What changes something is sent once: when its answer is lost,
// it fails with NETWORK_EXCEPTION or REQUEST_TIMED_OUT and may have been done.
import {
  AlterUserScramCredentials, CreateAcls, CreatePartitions, CreateTopics, DeleteAcls, DeleteGroups, DeleteRecords, DeleteTopics,
  DescribeAcls, DescribeCluster, DescribeConfigs, DescribeGroups, DescribeUserScramCredentials, IncrementalAlterConfigs, ListGroups,
  OffsetDelete, Status,
} from './apis-admin.js'
import { Assignment, OffsetCommit, OffsetFetch } from './apis-group.js'
import { Reader, decode, encode } from './bytes.js'
import type { CallOptions, Client } from './client.js'
import { check, corrupt } from './errors.js'
import { hashes } from './hash.js'
import type { Api, Of } from './schema.js'

export interface NewTopic {
  topic: string
  /** the cluster's default */
  partitions?: number
  /** the cluster's default */
  replicationFactor?: number
  configs?: Record<string, string>
}

export interface ConfigResource {
  type: 'topic' | 'broker'
  name: string
}
const resourceTypes = { topic: 2, broker: 4 }

export type AclFilter = Of<typeof DescribeAcls.request>
export type Acl = { [K in keyof Omit<AclFilter, 'tags'>]: NonNullable<AclFilter[K]> }

interface Offset {
  topic: string
  partition: number
  offset: bigint
  metadata?: string | null
}

const timeoutMs = 10_000
const byTopic = <T extends { topic: string }>(all: T[]): [string, T[]][] => {
  const topics = new Map<string, T[]>()
  for (const one of all) topics.set(one.topic, [...(topics.get(one.topic) ?? []), one])
  return [...topics]
}
const checkAll = (all: { errorCode: number; errorMessage?: string | null; topic?: string; groupId?: string }[]): void => {
  for (const one of all) check(one.errorCode, one.errorMessage || one.topic || one.groupId)
}

export class Admin {
  constructor(private client: Client) {}

  /** One request that must not be sent twice: only connecting is tried again. */
  private async once<Q, A>(api: Api<Q, A>, request: Q, o: CallOptions = {}): Promise<A> {
    let sent = false
    let failure: unknown
    const answer = await this.client.retry(async signal => {
      try {
        return await this.client.main.call(api, request, { signal, onSend: () => (sent = true) })
      } catch (e) {
        if (!sent || signal?.aborted) throw e
        failure = e
        return
      }
    }, o)
    if (failure) throw failure
    return answer!
  }

  async createTopics(topics: NewTopic[], o: CallOptions & { validateOnly?: boolean } = {}) {
    const a = await this.once(
      CreateTopics,
      {
        topics: topics.map(t => ({
          topic: t.topic, partitions: t.partitions ?? -1, replicationFactor: t.replicationFactor ?? -1, assignments: [],
          configs: Object.entries(t.configs ?? {}).map(([name, value]) => ({ name, value })),
        })),
        timeoutMs, validateOnly: o.validateOnly ?? false,
      },
      o,
    )
    checkAll(a.topics)
    return a.topics
  }

  async deleteTopics(topics: string[], o: CallOptions = {}): Promise<void> {
    checkAll((await this.once(DeleteTopics, { topics, timeoutMs }, o)).topics)
  }

  /** All topics, with their partitions. */
  async listTopics(o: CallOptions = {}) {
    return (await this.client.metadata(undefined, o)).topics
  }

  /** Those that are named, with what may be done with them as bits of `authorizedOperations`. */
  async describeTopics(topics: string[], o: CallOptions = {}) {
    const a = await this.client.metadata(topics, { authorizedOperations: true, ...o })
    for (const t of a.topics) check(t.errorCode, t.topic)
    return a.topics
  }

  /** Raises the number of a topic's partitions to `count`. */
  async createPartitions(topic: string, count: number, o: CallOptions & { validateOnly?: boolean } = {}): Promise<void> {
    const request = { topics: [{ topic, count, assignments: null }], timeoutMs, validateOnly: o.validateOnly ?? false }
    checkAll((await this.once(CreatePartitions, request, o)).topics)
  }

  /** Deletes the records below these offsets; -1 stands for the end. Gives the logs' new starts. */
  async deleteRecords(offsets: Offset[], o: CallOptions = {}): Promise<Offset[]> {
    const a = await this.once(
      DeleteRecords,
      { topics: byTopic(offsets).map(([topic, partitions]) => ({ topic, partitions })), timeoutMs },
      o,
    )
    return a.topics.flatMap(t =>
      t.partitions.map(p => {
        check(p.errorCode, `${t.topic}/${p.partition}`)
        return { topic: t.topic, partition: p.partition, offset: p.lowWatermark }
      }),
    )
  }

  async describeConfigs(resources: ConfigResource[], o: CallOptions & { documentation?: boolean; synonyms?: boolean } = {}) {
    const a = await this.client.ask(
      DescribeConfigs,
      {
        resources: resources.map(r => ({ resourceType: resourceTypes[r.type], resourceName: r.name, names: null })),
        includeSynonyms: o.synonyms ?? false, includeDocumentation: o.documentation ?? false,
      },
      a => checkAll(a.resources),
      o,
    )
    return a.resources
  }

  /** Sets what has a value and takes back what is null; the rest stays. */
  async alterConfigs(
    resource: ConfigResource,
    configs: Record<string, string | null>,
    o: CallOptions & { validateOnly?: boolean } = {},
  ): Promise<void> {
    const a = await this.once(
      IncrementalAlterConfigs,
      {
        resources: [{
          resourceType: resourceTypes[resource.type], resourceName: resource.name,
          configs: Object.entries(configs).map(([name, value]) => ({ name, op: value === null ? 1 : 0, value })),
        }],
        validateOnly: o.validateOnly ?? false,
      },
      o,
    )
    checkAll(a.resources)
  }

  async describeCluster(o: CallOptions = {}) {
    const request = { includeAuthorizedOperations: true }
    return this.client.ask(DescribeCluster, request, a => check(a.errorCode, a.errorMessage), o)
  }

  /** What `trimaran cluster status --json` shows: nodes, and where partitions really are. */
  async status(o: CallOptions = {}): Promise<any> {
    const { json } = await this.client.ask(Status, {}, a => check(a.errorCode), o)
    try {
      return JSON.parse(decode(json))
    } catch {
      throw corrupt('not JSON')
    }
  }

  async listGroups(o: CallOptions & { states?: string[] } = {}) {
    return (await this.client.ask(ListGroups, { states: o.states ?? [] }, a => check(a.errorCode), o)).groups
  }

  /** Groups with their members, and what each member has where that is a consumer's. */
  async describeGroups(groups: string[], o: CallOptions = {}) {
    const a = await this.client.ask(DescribeGroups, { groups, includeAuthorizedOperations: true }, a => checkAll(a.groups), o)
    return a.groups.map(g => ({
      ...g,
      members: g.members.map(m => ({
        ...m,
        partitions: g.protocolType === 'consumer' && m.assignment.length ? Assignment.read(new Reader(m.assignment)).topics : [],
      })),
    }))
  }

  async deleteGroups(groups: string[], o: CallOptions = {}): Promise<void> {
    checkAll((await this.once(DeleteGroups, { groups }, o)).groups)
  }

  /** What a group has committed, everywhere. */
  async groupOffsets(groupId: string, o: CallOptions = {}): Promise<Offset[]> {
    const a = await this.client.ask(OffsetFetch, { groupId, topics: null, requireStable: false }, a => check(a.errorCode), o)
    return a.topics.flatMap(t =>
      t.partitions.map(p => {
        check(p.errorCode, `${t.topic}/${p.partition}`)
        return { topic: t.topic, partition: p.partition, offset: p.offset, metadata: p.metadata }
      }),
    )
  }

  /** Sets committed offsets of a group without members. */
  async setGroupOffsets(groupId: string, offsets: Offset[], o: CallOptions = {}): Promise<void> {
    await this.client.ask(
      OffsetCommit,
      {
        groupId, generationId: -1, memberId: '', groupInstanceId: null,
        topics: byTopic(offsets).map(([topic, all]) => ({
          topic,
          partitions: all.map(c => ({ partition: c.partition, offset: c.offset, leaderEpoch: -1, metadata: c.metadata ?? null })),
        })),
      },
      a => a.topics.forEach(t => checkAll(t.partitions)),
      o,
    )
  }

  async deleteGroupOffsets(groupId: string, partitions: { topic: string; partition: number }[], o: CallOptions = {}): Promise<void> {
    const topics = byTopic(partitions).map(([topic, partitions]) => ({ topic, partitions }))
    const a = await this.once(OffsetDelete, { groupId, topics }, o)
    check(a.errorCode)
    for (const t of a.topics) checkAll(t.partitions)
  }

  /** ACLs in Kafka's numbers (enums of `AclBinding`). */
  async describeAcls(filter: AclFilter, o: CallOptions = {}): Promise<Acl[]> {
    const a = await this.client.ask(DescribeAcls, filter, a => check(a.errorCode, a.errorMessage), o)
    return a.resources.flatMap(({ acls, resourceType, resourceName, patternType }) =>
      acls.map(acl => ({ resourceType, resourceName, patternType, ...acl })),
    )
  }

  async createAcls(creations: Acl[], o: CallOptions = {}): Promise<void> {
    checkAll((await this.once(CreateAcls, { creations }, o)).results)
  }

  async deleteAcls(filters: AclFilter[], o: CallOptions = {}): Promise<Acl[]> {
    const a = await this.once(DeleteAcls, { filters }, o)
    checkAll(a.results)
    return a.results.flatMap(r => r.matching)
  }

  /** Users with SCRAM credentials: 1 is SCRAM-SHA-256, 2 SCRAM-SHA-512. */
  async describeUsers(users?: string[], o: CallOptions = {}) {
    const request = { users: users?.map(name => ({ name })) ?? null }
    const a = await this.client.ask(DescribeUserScramCredentials, request, a => check(a.errorCode, a.errorMessage), o)
    checkAll(a.results)
    return a.results
  }

  /** Sets a user's password. It does not leave this machine: the cluster gets what it needs to check it. */
  async upsertUser(
    name: string,
    password: string,
    o: CallOptions & { mechanism?: 'SCRAM-SHA-256' | 'SCRAM-SHA-512'; iterations?: number } = {},
  ): Promise<void> {
    const mechanism = o.mechanism === 'SCRAM-SHA-512' ? 2 : 1
    const iterations = o.iterations ?? 8192
    const salt = crypto.getRandomValues(new Uint8Array(24))
    const { pbkdf2 } = await hashes(mechanism === 2 ? 'SHA-512' : 'SHA-256')
    const saltedPassword = await pbkdf2(encode(password), salt, iterations)
    const upsertions = [{ name, mechanism, iterations, salt, saltedPassword }]
    checkAll((await this.once(AlterUserScramCredentials, { deletions: [], upsertions }, o)).results)
  }

  async deleteUser(name: string, mechanism: 'SCRAM-SHA-256' | 'SCRAM-SHA-512', o: CallOptions = {}): Promise<void> {
    const deletions = [{ name, mechanism: mechanism === 'SCRAM-SHA-512' ? 2 : 1 }]
    checkAll((await this.once(AlterUserScramCredentials, { deletions, upsertions: [] }, o)).results)
  }
}
