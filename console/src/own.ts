// Trimaran's own APIs, with JSON in them: status, what a node is asked to do, and tokens. And what
// of administration the first page needs, so that the rest is loaded later.
import { decode, encode } from 'trimaran/bytes'
import type { Lane } from 'trimaran/client'
import { KafkaError, check } from 'trimaran/errors'
import { api, arr, bool, bytes, i16, i32, nullableStr, obj, str, type Codec } from 'trimaran/schema'
import { client } from './link.js'

// The request's JSON has no length of its own.
const json: Codec<unknown> = {
  min: 0,
  read: r => JSON.parse(decode(r.take(r.left))),
  write: (w, v) => w.raw(encode(JSON.stringify(v))),
}
const answer = obj({ errorCode: i16, json: bytes })
const Status = api(21586, 0, 0, obj({}), answer)
const Administer = api(21588, 0, 0, json, answer)
const Token = api(21589, 0, 0, json, answer)

const lanes = new WeakMap<typeof client, Lane>()

/** On a connection of its own: it waits for nodes that do not answer, and others for it. */
export async function askStatus<T>(signal: AbortSignal, timeoutMs: number): Promise<T> {
  let lane = lanes.get(client)
  if (!lane) lanes.set(client, (lane = client.lane()))
  const a = await client.ask(Status, {}, a => check(a.errorCode), { signal, timeoutMs }, lane)
  return JSON.parse(decode(a.json)) as T
}

const DescribeCluster = api(60, 0, 1,
  obj({ includeAuthorizedOperations: bool }),
  obj({
    throttleMs: i32, errorCode: i16, errorMessage: nullableStr, clusterId: str, controllerId: i32,
    brokers: arr(obj({ nodeId: i32, host: str, port: i32, rack: nullableStr })), authorizedOperations: i32,
  }))

/** What may be done with the cluster, as bits. */
export async function askOperations(): Promise<number> {
  const a = await client.ask(DescribeCluster, { includeAuthorizedOperations: true }, a => check(a.errorCode, a.errorMessage))
  return a.authorizedOperations
}

export type Op = 'drain' | 'activate' | 'decommission'

/** All of these may be asked for twice. */
export async function administer(op: Op, node: string): Promise<void> {
  await client.ask(Administer, { op, node }, a => {
    check(a.errorCode)
    const said = JSON.parse(decode(a.json)) as { error?: string; retriable?: boolean }
    if (said.error) throw new KafkaError(42, said.error, { retriable: !!said.retriable })
  })
}

export interface Grant {
  resource: 'topic' | 'group'
  name: string
  prefix?: boolean
  access?: 'read' | 'write'
}
export interface Issued {
  token: string
  id: string
  expires_ms: number
}

/** Tokens that are not taken any more: one by its id, or all that a principal issued up to a time. */
export interface Revoked {
  id?: string
  principal?: string
  before_ms: number
  /** when that is forgotten, since nobody can have such a token any more */
  until_ms: number
}

async function askToken<T>(request: Record<string, unknown>, signal?: AbortSignal): Promise<T> {
  const a = await client.ask(Token, request, a => check(a.errorCode), { signal, timeoutMs: 10_000 })
  const said = JSON.parse(decode(a.json)) as T & { error?: string }
  if (said.error) throw new KafkaError(42, said.error)
  return said
}

export const issueToken = (scope: Grant[], lifetimeMs: number): Promise<Issued> => askToken({ kind: 'token', scope, lifetime_ms: lifetimeMs })
export const revoked = async (signal: AbortSignal): Promise<Revoked[]> => (await askToken<{ revoked?: Revoked[] }>({ kind: 'list' }, signal)).revoked ?? []
export const revokeTokens = (which: { ids: string[] } | { principal: string }): Promise<unknown> => askToken({ kind: 'revoke', ...which })
