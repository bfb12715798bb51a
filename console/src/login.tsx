// Who one is, said in SASL: a password is proven and not sent, where the mechanism is SCRAM.
import { useEffect, useState } from 'preact/hooks'
import type { Sasl } from 'trimaran'
import { status, topics } from './cluster.js'
import { linked, login, mechanisms } from './link.js'
import { go, use, type Place } from './state.js'
import { Field, Form } from './form.js'
import { Empty, Failure, Waiting } from './ui.js'

type Mechanism = Sasl['mechanism']
const words: Record<Mechanism, string> = {
  'SCRAM-SHA-512': 'Password (SCRAM-SHA-512)',
  'SCRAM-SHA-256': 'Password (SCRAM-SHA-256)',
  OAUTHBEARER: 'Token (OAUTHBEARER)',
  PLAIN: 'Password, sent as it is (PLAIN)',
}

export function Login({ place }: { place: Place }) {
  const [offered, setOffered] = useState<Mechanism[]>()
  const [error, setError] = useState<Error>()
  const [mechanism, setMechanism] = useState<Mechanism>('SCRAM-SHA-512')
  const [username, setUsername] = useState('')
  const [secret, setSecret] = useState('')
  const ask = (): void => {
    setError(undefined)
    mechanisms().then(all => {
      const known = (Object.keys(words) as Mechanism[]).filter(m => all.includes(m))
      setOffered(known)
      if (known.length) setMechanism(known[0])
    }, setError)
  }
  useEffect(ask, [])
  const { why } = use(linked)
  const byToken = mechanism === 'OAUTHBEARER'
  const submit = async (): Promise<void> => {
    await login(byToken ? { mechanism: 'OAUTHBEARER', token: secret.trim() } : { mechanism: mechanism as 'PLAIN', username, password: secret })
    status.forget()
    topics.forget()
    if (place.path[0] === 'login') go([])
  }
  return (
    <div class="login">
      <svg viewBox="0 0 34 24" aria-hidden="true">
        <path class="hull" d="M5 1h14q6 0 10 2.500Q25 6 19 6H5zM2 9.500h17q8 0 13 2.500-5 2.500-13 2.500H2zM5 18h14q6 0 10 2.500-4 2.500-10 2.500H5z" />
        <path class="beam" d="M9.500 3.500v17M17 3.500v17" />
      </svg>
      <h1>Come aboard</h1>
      {why && <Failure error={why} />}
      {error ? (
        <Failure error={error} again={ask} />
      ) : !offered ? (
        <Waiting />
      ) : !offered.length ? (
        <Empty title="Nobody can log in here">This cluster knows its clients by their certificates, or not at all.</Empty>
      ) : (
        <Form submit="Log in" ready={secret !== '' && (byToken || username !== '')} onSubmit={submit}>
          <Field label="By">
            {id => (
              <select id={id} value={mechanism} onChange={e => setMechanism(e.currentTarget.value as Mechanism)}>
                {offered.map(m => (
                  <option value={m}>{words[m]}</option>
                ))}
              </select>
            )}
          </Field>
          {!byToken && (
            <Field label="User">
              {id => <input id={id} name="username" autocomplete="username" autocapitalize="none" spellcheck={false} value={username} onInput={e => setUsername(e.currentTarget.value)} />}
            </Field>
          )}
          <Field
            label={byToken ? 'Token' : 'Password'}
            hint={mechanism === 'PLAIN' && location.protocol !== 'https:' ? 'This page has no TLS: whoever is on the way can read it.' : 'Kept in this page until it is closed or loaded again.'}
          >
            {id => <input id={id} name="password" type="password" autocomplete={byToken ? 'off' : 'current-password'} value={secret} onInput={e => setSecret(e.currentTarget.value)} />}
          </Field>
        </Form>
      )}
    </div>
  )
}
