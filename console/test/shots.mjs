// Pictures of every page, in both themes and three widths, of a cluster with something in it, and of
// one whose node is gone. They go to build/shots.
import { mkdirSync, rmSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Browser, Cluster, go } from './harness.mjs'

const out = fileURLToPath(new URL('../build/shots/', import.meta.url))
rmSync(out, { recursive: true, force: true })
mkdirSync(out, { recursive: true })
process.env.CHROMIUM ??= '/usr/bin/chromium'

const order = i => JSON.stringify({ id: i, customer: { name: 'Ada Lovelace', tier: i % 3 ? 'silver' : 'gold' }, items: [{ sku: `A-${i}`, n: 2 }, { sku: 'B', n: 1 }], total: i * 7.5, paid: i % 2 === 0 })
const cluster = await Cluster.start(3)
const browser = await Browser.start()
let stop = false
try {
  for (const [topic, partitions] of [['orders', 6], ['payments', 3], ['clicks', 12], ['audit.log', 1]]) {
    await cluster.trimaran(['topic', 'create', topic, '--partitions', String(partitions), '--replication-factor', '3'])
  }
  await cluster.trimaran(['produce', 'orders'], Array.from({ length: 60 }, (_, i) => order(i) + '\n').join(''))
  await cluster.trimaran(['produce', 'payments'], Array.from({ length: 500 }, (_, i) => `payment ${i}\n`).join(''))
  await cluster.trimaran(['consume', 'payments', '--group', 'billing', '--max-messages', '120'])
  const writing = (async () => {
    for (let i = 0; !stop; i++) await cluster.trimaran(['produce', 'clicks'], Array.from({ length: 20 + (i % 7) * 15 }, (_, k) => `{"click":${i * 100 + k}}\n`).join('')).catch(() => {})
  })()
  const pages = {
    overview: '#/', topics: '#/topics', create: '#/topics?create=1', live: '#/topics/clicks?from=live', messages: '#/topics/orders', message: '#/topics/orders?from=earliest',
    partitions: '#/topics/orders/partitions', configuration: '#/topics/orders/configuration', groups: '#/groups', group: '#/groups/billing', nodes: '#/nodes', access: '#/access', rights: '#/access/rights', login: '#/login',
  }
  const each = async (names, more = '') => {
    for (const width of [360, 800, 1280]) {
      for (const theme of ['light', 'dark']) {
        const page = await browser.open(cluster, { node: more ? 1 : 0, width, height: width < 500 ? 720 : 860, theme })
        await page.waitForTimeout(9_000)
        for (const name of names) {
          await go(page, pages[name])
          await page.waitForTimeout(1_500)
          if (name === 'message') {
            await page.locator('.records .body .row').nth(2).click()
            await page.waitForTimeout(400)
          }
          await page.screenshot({ path: `${out}${name}${more}-${width}-${theme}.png` })
          if (name === 'create') await page.keyboard.press('Escape')
        }
        await page.context().close()
      }
    }
  }
  await each(Object.keys(pages))
  cluster.kill(0)
  await each(['overview', 'nodes', 'partitions'], '-without-n1')
  stop = true
  await writing
} finally {
  stop = true
  await browser.end()
  await cluster.end()
}
console.log(`pictures are in ${out}`)
