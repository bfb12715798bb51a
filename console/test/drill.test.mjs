// The fault drill: nodes of `trimaran dev` are killed, paused and restarted from its page, which sees
// what a client sees.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Browser, Dev, audit, until } from './harness.mjs'

let dev
let browser
before(async () => {
  dev = await Dev.start()
  browser = await Browser.start()
})
after(async () => {
  await browser?.end()
  await dev?.end()
})

const number = text => Number(text.replace(/[^0-9.]/g, ''))

test('nodes are killed, paused and restarted, nothing is lost, and the page outlives all of them', async () => {
  const page = await browser.open(dev, { hash: '' })
  await page.getByRole('heading', { name: 'Fault drill' }).waitFor()
  await page.getByText('all hulls afloat').waitFor()
  const figure = async name => number(await page.locator('.figures div', { hasText: name }).locator('dd').textContent())
  const hull = id => page.locator('.hull', { has: page.getByText(id, { exact: true }) })
  await page.getByRole('button', { name: 'Start writing' }).click()
  await until(async () => (await figure('Acknowledged')) > 50)
  const goesOn = async () => {
    const now = await figure('Acknowledged')
    try {
      await until(async () => (await figure('Waiting now')) < 10 && (await figure('Acknowledged')) > now + 60)
    } catch (e) {
      // What the nodes say tells whether they, or the page, stand still.
      const ready = await Promise.all(dev.ports.slice(1).map(p => fetch(`http://127.0.0.1:${p}/readyz`).then(async r => `${r.status} ${await r.text()}`, String)))
      throw new Error(`${now} were acknowledged; the page says ${await page.locator('.figures').innerText()}\nnodes: ${ready.join('\n')}`, { cause: e })
    }
  }
  for (const [id, op, then] of [['n1', 'Kill', 'Start'], ['n2', 'Pause', 'Go on'], ['n3', 'Restart', undefined]]) {
    await page.getByRole('button', { name: `${op} ${id}` }).click()
    await hull(id).getByText(op === 'Kill' ? 'killed' : op === 'Pause' ? 'paused' : /stopping|starting/).waitFor()
    await goesOn()
    if (then) await page.getByRole('button', { name: `${then} ${id}` }).click()
    await hull(id).getByText('running').waitFor({ timeout: 60_000 })
    await until(async () => (await fetch(`http://127.0.0.1:${dev.ports[Number(id[1])]}/readyz`)).ok, 60_000)
    await goesOn()
  }
  await page.locator('.events li', { hasText: 'n1 killed' }).waitFor()
  for (const [theme, width] of [['dark', 360], ['light', 1280]]) {
    await page.setViewportSize({ width, height: 860 })
    await page.emulateMedia({ colorScheme: theme })
    await audit(page, `drill ${theme}`)
  }
  // Two of three are none that could acknowledge anything.
  for (const id of ['n1', 'n2', 'n3']) {
    await page.getByRole('button', { name: `Kill ${id}` }).click()
    await hull(id).getByText('killed').waitFor()
  }
  await page.getByText('0 of 3: no majority').waitFor()
  for (const id of ['n1', 'n2', 'n3']) await page.getByRole('button', { name: `Start ${id}` }).click()
  await page.getByText('all hulls afloat').waitFor({ timeout: 60_000 })
  await goesOn()
  await page.getByRole('button', { name: 'Stop writing' }).click()
  const [acknowledged, worst] = [await figure('Acknowledged'), await page.locator('.figures div', { hasText: 'Longest wait' }).locator('dd').textContent()]
  assert.equal(await figure('Lost or doubled'), 0)
  console.log(`# ${acknowledged} acknowledged, none lost, the longest wait ${worst} with all nodes down in between`)
  await page.getByRole('link', { name: 'Overview' }).first().click()
  await page.getByRole('heading', { name: 'Three hulls, one boat' }).waitFor({ timeout: 30_000 })
  await browser.close(page)
})

test('a page of a node has no drill, and may not ask for one', async () => {
  const node = { ports: dev.ports, url: () => `http://127.0.0.1:${dev.ports[1]}/` }
  const page = await browser.open(node, { hash: '#/drill' })
  await page.getByText('There is no such page').waitFor()
  assert.equal(await page.getByRole('link', { name: 'Drill' }).count(), 0)
  await page.context().close()
  for (const path of ['/drill', '/drill/nodes']) assert.equal((await fetch(`http://127.0.0.1:${dev.ports[1]}${path}`)).status, 404)
  // Neither may any other page of this machine.
  const other = await (await browser.chromium.newContext()).newPage()
  await other.route('**/other', route => route.fulfill({ contentType: 'text/html', body: '<p>another page' }))
  await other.goto(`http://127.0.0.1:${dev.ports[1]}/other`)
  const ends = await other.evaluate(async to => {
    const all = []
    for (const init of [{}, { mode: 'no-cors' }, { method: 'POST', body: '{"op":"kill","node":"n1"}' }, { method: 'POST', mode: 'no-cors', body: '{"op":"kill","node":"n1"}' }, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{"op":"kill","node":"n1"}' }]) {
      all.push(await fetch(to, init).then(r => `${r.status} ${r.type}`, e => e.name))
    }
    return all
  }, `http://127.0.0.1:${dev.ports[0]}/drill/nodes`)
  assert.deepEqual(ends.filter(e => e.startsWith('2')), [])
  await other.context().close()
  const all = await (await fetch(`http://127.0.0.1:${dev.ports[0]}/drill/nodes`)).json()
  assert.deepEqual(all.map(n => n.state), ['running', 'running', 'running'])
})
