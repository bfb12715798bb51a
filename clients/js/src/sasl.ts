// SASL: PLAIN (RFC 4616), SCRAM (RFC 5802, 7677) and OAUTHBEARER (RFC 7628).
import { SaslAuthenticate, SaslHandshake } from './apis-sasl.js'
import { decode, encode } from './bytes.js'
import { KafkaError, check } from './errors.js'
import { hashes, type HashName, type Hashes } from './hash.js'
import type { Api } from './schema.js'

export type Sasl =
  | { mechanism: 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512'; username: string; password: string }
  /** A token, or what gives one for each new connection. */
  | { mechanism: 'OAUTHBEARER'; token: string | (() => string | Promise<string>); extensions?: Record<string, string> }

/** Sends what the client says and gives what the other side answers. */
export type Exchange = (message: Uint8Array) => Promise<Uint8Array>

const refused = (why: string): KafkaError => new KafkaError(58, why)

/** Both halves of a login over a connection. Gives how long it lasts, in ms; 0: without end. @internal */
export async function login(sasl: Sasl, call: <Q, A>(api: Api<Q, A>, request: Q) => Promise<A>): Promise<number> {
  const hello = await call(SaslHandshake, { mechanism: sasl.mechanism })
  check(hello.errorCode, hello.mechanisms.length ? `the cluster takes ${hello.mechanisms.join(', ')}` : null)
  let lifetimeMs = 0
  await authenticate(sasl, async authBytes => {
    const answer = await call(SaslAuthenticate, { authBytes })
    check(answer.errorCode, answer.errorMessage)
    lifetimeMs = Number(answer.sessionLifetimeMs)
    return answer.authBytes
  })
  return lifetimeMs
}

/** @internal */
export async function authenticate(sasl: Sasl, exchange: Exchange): Promise<void> {
  switch (sasl.mechanism) {
    case 'PLAIN':
      await exchange(encode(`\0${sasl.username}\0${sasl.password}`))
      return
    case 'OAUTHBEARER': {
      const token = typeof sasl.token === 'string' ? sasl.token : await sasl.token()
      const more = Object.entries(sasl.extensions ?? {}).map(([k, v]) => `${k}=${v}\x01`).join('')
      const answer = await exchange(encode(`n,,\x01auth=Bearer ${token}\x01${more}\x01`))
      // What comes back is the reason of a refusal, which the client has to take note of.
      if (answer.length) {
        await exchange(Uint8Array.of(1)).catch(() => {})
        throw refused('the token was refused: ' + decode(answer))
      }
      return
    }
    case 'SCRAM-SHA-256':
    case 'SCRAM-SHA-512': {
      const name = sasl.mechanism.slice(6) as HashName
      return scram(await hashes(name), sasl.username, sasl.password, exchange)
    }
    default:
      throw new KafkaError(33, `SASL mechanism ${(sasl as Sasl).mechanism} is not known`)
  }
}

const base64 = (b: Uint8Array): string => btoa(String.fromCharCode(...b))
const unbase64 = (s: string): Uint8Array => {
  try {
    return Uint8Array.from(atob(s), c => c.charCodeAt(0))
  } catch {
    throw refused('not base64')
  }
}
const attributes = (message: Uint8Array): Record<string, string> => {
  const all: Record<string, string> = {}
  for (const part of decode(message).split(',')) all[part[0]] = part.slice(2)
  return all
}

// A hostile gateway could ask for rounds without end.
const maxIterations = 1 << 20

/** Proves the password without telling it, and has the other side prove that it knows it. @internal */
export async function scram(
  h: Hashes,
  username: string,
  password: string,
  exchange: Exchange,
  nonce = base64(globalThis.crypto.getRandomValues(new Uint8Array(24))),
): Promise<void> {
  const name = username.replace(/=/g, '=3D').replace(/,/g, '=2C')
  const bare = `n=${name},r=${nonce}`
  const first = await exchange(encode('n,,' + bare))
  const { r, s, i, e } = attributes(first)
  const iterations = Number(i)
  if (e) throw refused(e)
  if (!r?.startsWith(nonce) || r.length === nonce.length || !s) throw refused('the nonce is not ours')
  if (!(iterations >= 4096 && iterations <= maxIterations)) throw refused(`${i} iterations`)
  const salted = await h.pbkdf2(encode(password), unbase64(s), iterations)
  const clientKey = await h.hmac(salted, encode('Client Key'))
  const final = `c=biws,r=${r}`
  const message = encode(`${bare},${decode(first)},${final}`)
  const proof = await h.hmac(await h.hash(clientKey), message)
  clientKey.forEach((k, n) => (proof[n] ^= k))
  const last = attributes(await exchange(encode(`${final},p=${base64(proof)}`)))
  if (last.e) throw refused(last.e)
  const signature = await h.hmac(await h.hmac(salted, encode('Server Key')), message)
  if (last.v !== base64(signature)) throw refused('the other side does not know the password')
}
