// Pictures of every page, in both themes and three widths: of a cluster with something in it, of one
// whose node is gone, of one where clients log in, and of a fault drill. They go to build/shots, or
// to the folder that is named. SHOTS_WIDTHS names fewer widths. What breaks on the way fails this.
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Browser, Cluster, Dev, go } from './harness.mjs'

const out = process.argv[2] ?? fileURLToPath(new URL('../build/shots/', import.meta.url))
rmSync(out, { recursive: true, force: true })
mkdirSync(out, { recursive: true })

const order = i => JSON.stringify({ id: i, customer: { name: 'Ada Lovelace', tier: i % 3 ? 'silver' : 'gold' }, items: [{ sku: `A-${i}`, n: 2 }, { sku: 'B', n: 1 }], total: i * 7.5, paid: i % 2 === 0 })
const widths = (process.env.SHOTS_WIDTHS ?? '360,800,1280').split(',').map(Number)
let pictures = 0
const settle = page => page.waitForTimeout(250)

/** What is shown now, in each theme and width. */
async function take(page, name) {
  for (const width of widths) {
    await page.setViewportSize({ width, height: width < 500 ? 720 : 860 })
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme })
      await settle(page)
      await page.screenshot({ path: join(out, `${name}-${width}-${colorScheme}.png`) })
      pictures++
    }
  }
  await page.emulateMedia({ colorScheme: 'light' })
}

async function each(page, pages, more = '') {
  for (const [name, hash, prepare] of pages) {
    await go(page, hash)
    await page.waitForTimeout(800)
    await prepare?.(page)
    await take(page, name + more)
    await page.keyboard.press('Escape')
  }
}

const press = name => page => page.getByRole('button', { name, exact: true }).click()
const browser = await Browser.start()
const open = []
const start = async what => (open.push(await what), open.at(-1))
let stop = false
let writing
try {
  const cluster = await start(Cluster.start(3))
  for (const [topic, partitions] of [['orders', 6], ['payments', 3], ['clicks', 12], ['audit.log', 1], ['orders.eu-central.payment-provider.settlements.dead-letter.v2', 2]]) {
    await cluster.trimaran(['topic', 'create', topic, '--partitions', String(partitions), '--replication-factor', '3'])
  }
  await cluster.trimaran(['produce', 'orders'], Array.from({ length: 60 }, (_, i) => order(i) + '\n').join(''))
  await cluster.trimaran(['produce', 'payments'], Array.from({ length: 500 }, (_, i) => `payment ${i}\n`).join(''))
  await cluster.trimaran(['consume', 'payments', '--group', 'billing', '--max-messages', '120'])
  writing = (async () => {
    for (let i = 0; !stop; i++) await cluster.trimaran(['produce', 'clicks'], Array.from({ length: 20 + (i % 7) * 15 }, (_, k) => `{"click":${i * 100 + k}}\n`).join('')).catch(() => {})
  })()
  const page = await browser.open(cluster)
  await page.waitForTimeout(20_000) // plots have something to show
  await each(page, [
    ['overview', '#/'], ['topics', '#/topics'], ['create', '#/topics?create=1'], ['no-topic', '#/topics?q=nothing'],
    ['live', '#/topics/clicks?from=live', p => p.waitForTimeout(3_000)], ['messages', '#/topics/orders'], ['search', '#/topics/orders?q=.customer.tier%3Dgold'],
    ['message', '#/topics/orders?from=earliest', p => p.locator('.records .body .row').nth(2).click()],
    ['produce', '#/topics/orders?from=newest', press('Produce')], ['empty', '#/topics/audit.log'],
    ['partitions', '#/topics/orders/partitions'], ['configuration', '#/topics/orders/configuration'],
    ['groups', '#/groups'], ['group', '#/groups/billing', p => p.waitForTimeout(5_000)], ['reset', '#/groups/billing', press('Reset offsets')],
    ['nodes', '#/nodes'], ['drain', '#/nodes', p => p.getByRole('button', { name: /^Drain/ }).first().click()], ['access', '#/access'], ['rights', '#/access/rights'], ['login', '#/login'], ['nowhere', '#/nowhere'],
  ])
  await browser.close(page)
  cluster.kill(0)
  const other = await browser.open(cluster, { node: 1 })
  await other.waitForTimeout(9_000)
  await each(other, [['overview', '#/'], ['nodes', '#/nodes'], ['partitions', '#/topics/orders/partitions']], '-without-n1')
  await browser.close(other)
  stop = true
  await writing
  await open.pop().end()

  const secured = await start(Cluster.start(1, '--sasl-mechanisms', 'SCRAM-SHA-512,OAUTHBEARER', '--authorize', '--super-users', 'User:admin'))
  secured.brokers = `unix:${secured.dir}/n1`
  for (const user of ['admin', 'alice', 'billing-service']) await secured.trimaran(['user', 'create', user, '--password-stdin'], `${user}-password\n`)
  for (const [user, topic] of [['alice', 'orders'], ['billing-service', 'payments']]) await secured.trimaran(['acl', 'add', '--principal', `User:${user}`, '--topic', topic, '--operation', 'read'])
  const locked = await browser.open(secured)
  await locked.getByLabel('User', { exact: true }).waitFor()
  await take(locked, 'locked')
  await locked.getByLabel('User', { exact: true }).fill('admin')
  await locked.getByLabel('Password', { exact: true }).fill('admin-password')
  await locked.getByRole('button', { name: 'Log in' }).click()
  await locked.getByText('Log out').waitFor()
  await each(locked, [
    ['users', '#/access'], ['rights-of', '#/access/rights'], ['right', '#/access/rights', press('Add')], ['tokens', '#/access/tokens'],
  ])
  await browser.close(locked)
  await open.pop().end()

  const dev = await start(Dev.start())
  const drill = await browser.open(dev, { hash: '' })
  await drill.getByText('all hulls afloat').waitFor()
  await take(drill, 'drill-begin')
  await drill.getByRole('button', { name: 'Start writing' }).click()
  await drill.waitForTimeout(8_000)
  await drill.getByRole('button', { name: 'Kill n2' }).click()
  await drill.waitForTimeout(5_000)
  await drill.getByRole('button', { name: 'Pause n3' }).click()
  await drill.waitForTimeout(4_000)
  await take(drill, 'drill')
  await drill.context().close()
} finally {
  stop = true
  await writing
  await browser.end()
  for (const one of open) await one.end()
}
console.log(`${pictures} pictures are in ${out}`)
