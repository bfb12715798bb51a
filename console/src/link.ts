// The connection to the cluster: one client for the page, the nodes that it may use, who is logged
// in, and what the node at the other end is.
import { Client, KafkaError, type ClientEvent, type ClientOptions, type Sasl } from 'trimaran'
import { SaslHandshake } from 'trimaran/apis-sasl'
import { Value, go, paused } from './state.js'

export interface Link {
  /** the gateway that answers; '' while none does */
  gateway: string
  /** since when none does, in ms since 1970 */
  lostAt?: number
  /** the cluster has answered */
  open?: boolean
  /** it does not answer to strangers */
  locked?: boolean
  /** what was wrong with a login that held before, or came with the address */
  why?: Error
  user?: string
}

const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:'
const own = `${scheme}//${location.host}/`

export const linked = new Value<Link>({ gateway: '', lostAt: Date.now() })
let sasl: Sasl | undefined
export let client: Client
/** Called when there is another client. */
export const onConnect: (() => void)[] = []

function onEvent(e: ClientEvent): void {
  const now = linked.get()
  if (e.type === 'connected') linked.set({ ...now, gateway: e.gateway, lostAt: undefined })
  if (e.type === 'lost' && e.gateway === now.gateway) linked.set({ ...now, gateway: '', lostAt: Date.now() })
}

/** The page comes from who runs the nodes, and none of them is at its address (package drill). */
export const drills = location.pathname === '/drill'
const gateways = drills ? [] : [own]

function connect(): void {
  client?.close()
  client = another({ onEvent, requestTimeoutMs: 8_000, connectTimeoutMs: 2_000, timeoutMs: 15_000 })
  for (const f of onConnect) f()
}

export const another = (o: Partial<ClientOptions>): Client => new Client({ gateways, clientId: 'trimaran-console', sasl, ...o })

/** Has a client from then on. */
export async function begin(): Promise<void> {
  if (drills) await findGateways()
  takeToken()
  connect()
  addEventListener('hashchange', () => {
    if (!takeToken()) return
    connect()
    paused.set(false)
    void knock()
  })
}

/** A token in the address logs in, and does not stay there. */
function takeToken(): boolean {
  const token = /^#token=([\w.~+/-]+=*)$/.exec(location.hash)?.[1]
  if (!token) return false
  go([], {}, true)
  sasl = { mechanism: 'OAUTHBEARER', token }
  linked.set({ ...linked.get(), locked: false, open: false, user: byToken })
  return true
}
const byToken = 'by token'

/**
 * The other nodes, from the policy that the page came with: to these it may connect. So nothing but
 * the page's own header has to say it, whoever is logged in.
 */
export async function findGateways(): Promise<void> {
  const answer = await fetch(location.pathname, { method: 'HEAD', headers: { Accept: 'text/html' } })
  const policy = answer.headers.get('Content-Security-Policy') ?? ''
  const sources = /connect-src ([^;]*)/.exec(policy)?.[1].split(' ') ?? []
  for (const source of sources) {
    if (!source.startsWith(scheme)) continue
    const url = source + '/'
    if (!gateways.includes(url)) gateways.push(url)
  }
}

/** Whether an error says: log in first. */
const asksForLogin = (e: unknown): boolean => e instanceof KafkaError && (e.code === 34 || e.code === 58)

/**
 * Learns whether the cluster answers at all, before pages ask for more: where clients have to log
 * in, what they ask for without ends their connection. Status alone is answered with the reason.
 */
export async function knock(): Promise<void> {
  const mine = client
  for (;;) {
    try {
      await mine.metadata([])
      if (mine === client) linked.set({ ...linked.get(), open: true })
      return
    } catch (e) {
      if (mine !== client || linked.get().locked) return
      if (asksForLogin(e)) return lock(e as Error)
    }
  }
}

function lock(e: Error): void {
  if (linked.get().locked) return
  paused.set(true)
  linked.set({ ...linked.get(), locked: true, why: sasl && e, open: false, user: undefined })
  sasl = undefined
  client.close()
}

/** Has the page ask for a login where an answer says so. */
export async function guard<T>(p: Promise<T>): Promise<T> {
  try {
    return await p
  } catch (e) {
    if (asksForLogin(e)) lock(e as Error)
    throw e
  }
}

/** By which mechanisms the cluster takes clients; none where it has no SASL. */
export async function mechanisms(): Promise<string[]> {
  const probe = another({ sasl: undefined, connectTimeoutMs: 2_000, timeoutMs: 5_000 })
  try {
    return (await probe.ask(SaslHandshake, { mechanism: 'SCRAM-SHA-512' }, () => {})).mechanisms
  } finally {
    probe.close()
  }
}

/** Logs in, or fails and leaves everything as it was. */
export async function login(credentials: Sasl): Promise<void> {
  const probe = another({ sasl: credentials, connectTimeoutMs: 8_000, timeoutMs: 10_000 })
  try {
    await probe.metadata([])
  } finally {
    probe.close()
  }
  sasl = credentials
  connect()
  paused.set(false)
  linked.set({ ...linked.get(), locked: false, open: true, user: 'username' in credentials ? credentials.username : byToken })
}

/** Nothing of what was seen stays. */
export const logout = (): void => location.reload()

/** The address in a gateway's URL. */
export const hostOf = (gateway: string): string => gateway.replace(/^wss?:\/\//, '').replace(/\/$/, '')

// KIP-430: a bit for each operation that the client may do, by AclOperation's numbers.
export const ops = { read: 3, write: 4, create: 5, delete: 6, alter: 7, describe: 8, describeConfigs: 10, alterConfigs: 11 } as const
/** Whether the bits have the operation. Where none are told it is for the cluster to judge. */
export const may = (bits: number | undefined, op: keyof typeof ops): boolean =>
  bits === undefined || bits === -2147483648 || (bits & (1 << ops[op])) !== 0
