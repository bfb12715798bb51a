// Who may: users, their rights, and tokens.
import { useMemo, useState } from 'preact/hooks'
import type { KafkaError } from 'trimaran'
import type { Acl } from 'trimaran/admin'
import { admin } from './admin.js'
import { clusterOps } from './cluster.js'
import { duration, shown, time } from './format.js'
import { linked, may } from './link.js'
import { issueToken, revokeTokens, revoked, type Grant, type Issued, type Revoked } from './own.js'
import { useSome } from './some.js'
import { Poll, link, use, usePoll, type Place } from './state.js'
import { Confirm, Dialog, Field, Form } from './form.js'
import { Badge, Button, Empty, Failure, Panel, Search, Tabs, say } from './ui.js'

type User = Awaited<ReturnType<typeof admin.describeUsers>>[number]
const users = new Poll<User[]>(signal => admin.describeUsers(undefined, { signal, timeoutMs: 10_000 }), 15_000)
const any = { resourceType: 1, resourceName: null, patternType: 1, principal: null, host: null, operation: 1, permissionType: 1 }
const acls = new Poll<Acl[]>(signal => admin.describeAcls(any, { signal, timeoutMs: 10_000 }), 15_000)

export function Access({ place }: { place: Place }) {
  const tab = place.path[1] ?? 'users'
  const l = use(linked)
  return (
    <>
      <div class="title">
        <h1>Access</h1>
        <div class="actions">{l.user === undefined && <a class="button" href={link(['login'])}>Log in</a>}</div>
      </div>
      <Tabs
        label="Of access" current={tab}
        of={[
          { id: 'users', name: 'Users', href: link(['access']) },
          { id: 'rights', name: 'Rights', href: link(['access', 'rights']) },
          { id: 'tokens', name: 'Tokens', href: link(['access', 'tokens']) },
        ]}
      />
      {tab === 'users' && <Users />}
      {tab === 'rights' && <Rights place={place} />}
      {tab === 'tokens' && <Tokens user={l.user} />}
    </>
  )
}

const mechanismName = (m: number): string => (m === 1 ? 'SCRAM-SHA-256' : m === 2 ? 'SCRAM-SHA-512' : `mechanism ${m}`)

function Users() {
  const u = usePoll(users)
  const bits = use(clusterOps)
  const [editing, setEditing] = useState<{ name?: string }>()
  const [removing, setRemoving] = useState<User>()
  const mayAlter = may(bits, 'alter')
  const [some, more] = useSome(u.data ?? [], 3)
  const remove = async (): Promise<void> => {
    for (const c of removing!.credentials) await admin.deleteUser(removing!.user, mechanismName(c.mechanism) as 'SCRAM-SHA-256')
    say(`User ${removing!.user} is deleted`)
    setRemoving(undefined)
    void users.refresh()
  }
  return (
    <Panel
      title="Users" of={u} again={users.refresh}
      actions={mayAlter && u.data && <Button icon="plus" look="main" onClick={() => setEditing({})}>Create user</Button>}
    >
      {u.data?.length === 0 && <Empty title="No users yet">A user proves a password by SCRAM; nodes keep what it is checked with, and not the password.</Empty>}
      {u.data && u.data.length > 0 && (
        <table>
          <thead>
            <tr>
              <th scope="col">Name</th>
              <th scope="col">Credentials</th>
              <th />
            </tr>
          </thead>
          <tbody>
            {some.map(one => (
              <tr key={one.user}>
                <td>
                  <a href={link(['access', 'rights'], { q: `User:${one.user}` })}>{shown(one.user)}</a>
                </td>
                <td>{one.credentials.map(c => <Badge>{mechanismName(c.mechanism)}</Badge>)}</td>
                <td class="number">
                  {mayAlter && (
                    <>
                      <Button look="plain" icon="edit" aria-label={`New password of ${shown(one.user)}`} onClick={() => setEditing({ name: one.user })}>
                        <span class="wide">New password</span>
                      </Button>
                      <Button look="plain" icon="trash" aria-label={`Delete user ${shown(one.user)}`} onClick={() => setRemoving(one)} />
                    </>
                  )}
                </td>
              </tr>
            ))}
            {more}
          </tbody>
        </table>
      )}
      {editing && <Edit name={editing.name} onClose={() => setEditing(undefined)} />}
      {removing && (
        <Confirm title="Delete this user" verb="Delete" name={removing.user} onClose={() => setRemoving(undefined)} onSubmit={remove}>
          Nobody can log in by it any more. Its rights stay, for a user of the same name.
        </Confirm>
      )}
    </Panel>
  )
}

function Edit({ name: given, onClose }: { name?: string; onClose: () => void }) {
  const [name, setName] = useState(given ?? '')
  const [password, setPassword] = useState('')
  const submit = async (): Promise<void> => {
    for (const mechanism of ['SCRAM-SHA-512', 'SCRAM-SHA-256'] as const) await admin.upsertUser(name, password, { mechanism })
    say(given ? `User ${name} has another password` : `User ${name} is created`)
    void users.refresh()
    onClose()
  }
  return (
    <Dialog title={given ? `Another password for ${shown(given)}` : 'Create a user'} onClose={onClose}>
      <Form submit={given ? 'Set' : 'Create'} ready={name !== '' && password.length >= 8} onSubmit={submit} onCancel={onClose}>
        {given === undefined && <Field label="Name">{id => <input id={id} value={name} onInput={e => setName(e.currentTarget.value)} autocapitalize="none" spellcheck={false} />}</Field>}
        <Field label="Password" hint="At least 8 characters. It does not leave this page.">
          {id => <input id={id} type="password" autocomplete="new-password" value={password} onInput={e => setPassword(e.currentTarget.value)} />}
        </Field>
      </Form>
    </Dialog>
  )
}

// Kafka's numbers of AclBinding.
const resources: Record<number, string> = { 2: 'Topic', 3: 'Group', 4: 'Cluster', 5: 'TransactionalId', 6: 'DelegationToken', 7: 'User' }
const operations: Record<number, string> = { 2: 'All', 3: 'Read', 4: 'Write', 5: 'Create', 6: 'Delete', 7: 'Alter', 8: 'Describe', 9: 'ClusterAction', 10: 'DescribeConfigs', 11: 'AlterConfigs', 12: 'IdempotentWrite' }

const sentence = (a: Acl): string =>
  `${a.permissionType === 2 ? 'may not' : 'may'} ${operations[a.operation] ?? a.operation} ${resources[a.resourceType] ?? a.resourceType} ${a.patternType === 4 ? `${a.resourceName}…` : a.resourceName}`

function Rights({ place }: { place: Place }) {
  const a = usePoll(acls)
  const bits = use(clusterOps)
  const [q, setQ] = useState(place.query.get('q') ?? '')
  const [adding, setAdding] = useState(false)
  const [error, setError] = useState<Error>()
  const mayAlter = may(bits, 'alter')
  const list = useMemo(() => (a.data ?? []).filter(x => `${x.principal} ${sentence(x)}`.toLowerCase().includes(q.toLowerCase())).sort((x, y) => (x.principal < y.principal ? -1 : 1)), [a.data, q])
  const [some, more] = useSome(list, 4)
  if ((a.error as KafkaError | undefined)?.code === 54) return <Empty title="This cluster judges no rights">Nodes run without --authorize: whoever comes in may do everything.</Empty>
  const remove = async (acl: Acl): Promise<void> => {
    try {
      await admin.deleteAcls([acl])
      say('The right is taken away')
      setError(undefined)
    } catch (e) {
      setError(e as Error)
    }
    void acls.refresh()
  }
  return (
    <Panel
      title="Rights" of={a} again={acls.refresh}
      actions={a.data && (
        <>
          <Search value={q} label="Search rights" onInput={setQ} />
          {mayAlter && <Button icon="plus" look="main" onClick={() => setAdding(true)}>Add</Button>}
        </>
      )}
    >
      {error && <Failure error={error} />}
      {a.data && !list.length && <Empty title={q ? 'No right has that in it' : 'Nobody has been given a right'}>{!q && 'Super users may do everything; all others need rights.'}</Empty>}
      {list.length > 0 && (
        <div class="scroll">
          <table>
            <thead>
              <tr>
                <th scope="col">Who</th>
                <th scope="col">May</th>
                <th scope="col" class="wide">From</th>
                <th />
              </tr>
            </thead>
            <tbody>
              {some.map(x => (
                <tr key={JSON.stringify(x)}>
                  <td>{shown(x.principal)}</td>
                  <td>
                    <Badge level={x.permissionType === 2 ? 'bad' : 'good'}>{x.permissionType === 2 ? 'may not' : 'may'}</Badge> {operations[x.operation] ?? x.operation} <span class="quiet">{resources[x.resourceType] ?? x.resourceType}</span>{' '}
                    <code>{shown(x.resourceName)}{x.patternType === 4 && '…'}</code>
                  </td>
                  <td class="wide quiet">{x.host === '*' ? 'anywhere' : shown(x.host)}</td>
                  <td class="number">{mayAlter && <Button look="plain" icon="trash" aria-label={`Take away: ${shown(x.principal)} ${shown(sentence(x))}`} onClick={() => void remove(x)} />}</td>
                </tr>
              ))}
              {more}
            </tbody>
          </table>
        </div>
      )}
      {adding && <Add onClose={() => setAdding(false)} />}
    </Panel>
  )
}

const Choice = (p: { label: string; of: Record<number, string>; value: number; set: (n: number) => void }) => (
  <Field label={p.label}>
    {id => (
      <select id={id} value={p.value} onChange={e => p.set(Number(e.currentTarget.value))}>
        {Object.entries(p.of).map(([n, name]) => (
          <option value={n}>{name}</option>
        ))}
      </select>
    )}
  </Field>
)

function Add({ onClose }: { onClose: () => void }) {
  const [acl, setAcl] = useState<Acl>({ resourceType: 2, resourceName: '', patternType: 3, principal: 'User:', host: '*', operation: 3, permissionType: 3 })
  const set = (to: Partial<Acl>): void => setAcl({ ...acl, ...to })
  const cluster = acl.resourceType === 4
  const whole: Acl = cluster ? { ...acl, resourceName: 'kafka-cluster', patternType: 3 } : acl
  const submit = async (): Promise<void> => {
    await admin.createAcls([whole])
    say(`${whole.principal} ${sentence(whole)}`)
    void acls.refresh()
    onClose()
  }
  return (
    <Dialog title="Add a right" onClose={onClose}>
      <Form submit="Add" ready={whole.resourceName !== '' && /^.+:.+$/.test(acl.principal)} onSubmit={submit} onCancel={onClose}>
        <Field label="Who" hint="User:name; User:* is everybody">{id => <input id={id} value={acl.principal} onInput={e => set({ principal: e.currentTarget.value })} spellcheck={false} autocapitalize="none" />}</Field>
        <div class="pair">
          <Choice label="Permission" of={{ 3: 'may', 2: 'may not' }} value={acl.permissionType} set={permissionType => set({ permissionType })} />
          <Choice label="Operation" of={operations} value={acl.operation} set={operation => set({ operation })} />
        </div>
        <div class="pair">
          <Choice label="On" of={{ 2: 'Topic', 3: 'Group', 4: 'Cluster', 5: 'TransactionalId' }} value={acl.resourceType} set={resourceType => set({ resourceType })} />
          {!cluster && <Choice label="Whose name" of={{ 3: 'is', 4: 'begins with' }} value={acl.patternType} set={patternType => set({ patternType })} />}
        </div>
        {!cluster && <Field label="Name" hint="* is all">{id => <input id={id} value={acl.resourceName} onInput={e => set({ resourceName: e.currentTarget.value })} spellcheck={false} autocapitalize="none" />}</Field>}
      </Form>
    </Dialog>
  )
}

const gone = new Poll<Revoked[]>(revoked, 15_000)

function Tokens({ user }: { user?: string }) {
  if (user === undefined) {
    return <Empty title="Log in to issue tokens">A token lets its holder do a part of what you may, for a while. <a href={link(['login'])}>Log in</a></Empty>
  }
  return (
    <>
      <Issue />
      <RevokedTokens />
    </>
  )
}

function Issue() {
  const [kind, setKind] = useState<'read' | 'write' | 'group'>('read')
  const [name, setName] = useState('')
  const [prefix, setPrefix] = useState(false)
  const [hours, setHours] = useState('24')
  const [issued, setIssued] = useState<Issued>()
  const submit = async (): Promise<void> => {
    const grant: Grant = kind === 'group' ? { resource: 'group', name, prefix } : { resource: 'topic', name, prefix, access: kind }
    setIssued(await issueToken([grant], Number(hours) * 3_600_000))
  }
  return (
    <Panel title="Issue a token">
      <Form submit="Issue" ready={name !== '' && Number(hours) > 0} onSubmit={submit}>
        <div class="pair">
          <Field label="To">
            {id => (
              <select id={id} value={kind} onChange={e => setKind(e.currentTarget.value as 'read')}>
                <option value="read">read a topic</option>
                <option value="write">write to a topic</option>
                <option value="group">use a group</option>
              </select>
            )}
          </Field>
          <Field label="Name">{id => <input id={id} value={name} onInput={e => setName(e.currentTarget.value)} spellcheck={false} autocapitalize="none" />}</Field>
        </div>
        <label class="check"><input type="checkbox" checked={prefix} onChange={e => setPrefix(e.currentTarget.checked)} /> And all whose names begin so</label>
        <Field label="For so many hours" hint={Number(hours) > 0 ? duration(Number(hours) * 3_600_000) : ''}>{id => <input id={id} type="number" min={1} value={hours} onInput={e => setHours(e.currentTarget.value)} />}</Field>
      </Form>
      {issued && (
        <div class="issued" role="status">
          <p>This is shown once. It ends {time(issued.expires_ms).slice(0, 19)}; by its id <code>{shown(issued.id)}</code> it is revoked.</p>
          <pre>{shown(issued.token)}</pre>
          <p>Who opens <code>{location.origin}/#token=…</code> with it is logged in by it.</p>
        </div>
      )}
    </Panel>
  )
}

function RevokedTokens() {
  const r = usePoll(gone)
  const mayAlter = may(use(clusterOps), 'alter')
  const [adding, setAdding] = useState(false)
  const list = [...(r.data ?? [])].sort((a, b) => b.until_ms - a.until_ms)
  const [some, more] = useSome(list, 2)
  return (
    <Panel title="Revoked tokens" of={r} again={gone.refresh} actions={mayAlter && r.data && <Button onClick={() => setAdding(true)}>Revoke</Button>}>
      {r.data && !list.length && <Empty title="None is revoked">Tokens end by themselves; nodes keep no list of those that are about.</Empty>}
      {list.length > 0 && (
        <div class="scroll">
          <table>
            <thead>
              <tr>
                <th scope="col">Which</th>
                <th scope="col" class="wide">Forgotten</th>
              </tr>
            </thead>
            <tbody>
              {some.map(x => (
                <tr key={x.id ?? x.principal}>
                  <td>{x.id ? <code>{shown(x.id)}</code> : <>all of {shown(x.principal ?? '')} until {time(x.before_ms).slice(0, 19)}</>}</td>
                  <td class="wide quiet">{time(x.until_ms).slice(0, 19)}</td>
                </tr>
              ))}
              {more}
            </tbody>
          </table>
        </div>
      )}
      {adding && <Revoke onClose={() => setAdding(false)} />}
    </Panel>
  )
}

function Revoke({ onClose }: { onClose: () => void }) {
  const [which, setWhich] = useState('')
  const id = /^[0-9a-f]{32}$/.test(which)
  const submit = async (): Promise<void> => {
    await revokeTokens(id ? { ids: [which] } : { principal: which })
    say(id ? 'The token is revoked' : `All tokens of ${which} are revoked`)
    void gone.refresh()
    onClose()
  }
  return (
    <Dialog title="Revoke tokens" onClose={onClose}>
      <Form submit="Revoke" danger ready={id || /^.+:.+$/.test(which)} onSubmit={submit} onCancel={onClose}>
        <p>Whoever uses one is cut off within a second.</p>
        <Field label="Which" hint="A token's id, or User:name for all that it has issued until now.">{id => <input id={id} value={which} onInput={e => setWhich(e.currentTarget.value.trim())} spellcheck={false} autocapitalize="none" />}</Field>
      </Form>
    </Dialog>
  )
}
