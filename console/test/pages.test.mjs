// Each page and what can be done there, on one cluster of three nodes.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { Browser, Cluster, audit, go, until } from './harness.mjs'

let cluster
let browser
before(async () => {
  cluster = await Cluster.start(3) // which would create topics that are asked for by a client that wants that
  browser = await Browser.start()
})
after(async () => {
  await browser?.end()
  await cluster?.end()
})

const row = (page, text) => page.locator('.rows .body .row', { hasText: text })

test('a cluster without topics has hulls and says what to do', async () => {
  const page = await browser.open(cluster)
  await page.getByRole('heading', { name: 'Three hulls, one boat' }).waitFor()
  assert.equal(await page.locator('.boat .hull').count(), 3)
  await page.getByText('No topics yet').waitFor()
  await go(page, '#/groups')
  await page.getByText('No groups yet').waitFor()
  await go(page, '#/no-such-page')
  await page.getByText('There is no such page').waitFor()
  for (const hash of ['#/topics/no-such-topic', '#/topics/no-such-topic?from=live', '#/topics/no-such-topic/partitions', '#/topics/no-such-topic/configuration']) {
    await go(page, hash)
    await page.getByText('There is no such topic').waitFor()
  }
  await go(page, '#/groups/no-such-group')
  await page.getByText('Nothing is committed').waitFor()
  assert.deepEqual(JSON.parse(await cluster.trimaran(['topic', 'list', '--json'])), [], 'nothing creates topics by itself')
  await browser.close(page)
})

test('a topic is created, configured, gets partitions, and is deleted by its name', async () => {
  const page = await browser.open(cluster, { hash: '#/topics' })
  await page.getByRole('button', { name: 'Create topic' }).click()
  const dialog = page.getByRole('dialog')
  await dialog.getByLabel('Name').fill('no spaces')
  assert.ok(await dialog.getByRole('button', { name: 'Create' }).isDisabled())
  await dialog.getByLabel('Name').fill('made')
  await dialog.getByLabel('Partitions').fill('2')
  await dialog.getByLabel('Records are kept for').selectOption('86400000')
  await dialog.getByRole('button', { name: 'Create' }).click()
  await page.getByRole('heading', { name: 'made' }).waitFor()
  await page.getByText('2 partitions').first().waitFor()

  await page.getByRole('button', { name: 'Add partitions' }).click()
  await dialog.getByLabel('Partitions in all').fill('5')
  await dialog.getByRole('button', { name: 'Add' }).click()
  await page.getByText('5 partitions').first().waitFor()
  await page.getByRole('link', { name: 'Partitions', exact: true }).click()
  await until(async () => (await page.locator('.panel tbody tr').count()) === 5)
  await until(async () => (await page.locator('.panel tbody tr', { hasText: 'leads' }).count()) === 5)

  await page.getByRole('link', { name: 'Configuration' }).click()
  await page.locator('tr.own', { hasText: 'retention.ms' }).getByText('1 day').waitFor()
  await page.getByRole('button', { name: 'Change retention.ms' }).click()
  await dialog.getByLabel('Value').fill('nonsense')
  await dialog.getByRole('button', { name: 'Set' }).click()
  await dialog.getByRole('alert').getByText('INVALID_CONFIG').waitFor()
  await dialog.getByLabel('Value').fill('3600000')
  await dialog.getByRole('button', { name: 'Set' }).click()
  await page.locator('tr.own', { hasText: 'retention.ms' }).getByText('1 h').waitFor()
  await page.getByRole('button', { name: 'Change retention.ms' }).click()
  await dialog.getByRole('button', { name: 'Back to the default' }).click()
  await until(async () => (await page.locator('tr.own', { hasText: 'retention.ms' }).count()) === 0)

  await page.getByRole('button', { name: 'Delete this topic' }).click()
  await dialog.getByLabel('Type the name').fill('mad')
  assert.ok(await dialog.getByRole('button', { name: 'Delete for good' }).isDisabled())
  await dialog.getByLabel('Type the name').fill('made')
  await dialog.getByRole('button', { name: 'Delete for good' }).click()
  await page.getByText('No topics yet').waitFor()
  await browser.close(page)
})

/** In the page: what goes over its WebSockets, from "Send" to when the tail shows it. */
function watchSockets() {
  const asked = []
  const settled = new Map()
  let opened = 0
  let came = () => {}
  const Plain = WebSocket
  globalThis.WebSocket = class extends Plain {
    constructor(url) {
      super(url)
      opened++
      super.addEventListener('message', e => {
        const key = this.asked.shift()
        settled.set(key, true)
        came(e.data)
      })
    }
    asked = []
    send(data) {
      const key = new DataView(data.buffer, data.byteOffset).getInt16(4)
      asked.push(key)
      this.asked.push(key)
      super.send(data)
    }
  }
  /** Waits until an answer to this API has come. */
  globalThis.settled = key => new Promise(done => {
    const look = () => (settled.has(key) ? done() : setTimeout(look, 10))
    look()
  })
  globalThis.sendToTail = text => new Promise(done => {
    addEventListener('click', function clicked(e) {
      if (e.target.textContent !== 'Send') return
      removeEventListener('click', clicked, true)
      const began = performance.now()
      asked.length = opened = 0
      let frames = -1
      came = data => {
        if (frames < 0 && new TextDecoder().decode(data).includes(text)) frames = 0
      }
      const look = () => {
        // Of writing: Produce, InitProducerId. Others ask what they always ask.
        if (document.querySelector('.records')?.textContent.includes(text)) done({ ms: performance.now() - began, frames, asked: asked.filter(k => k === 0 || k === 22), opened })
        else requestAnimationFrame(look)
        if (frames >= 0) frames++
      }
      look()
    }, true)
  })
}

const hostile = '<img src=x onerror=alert(1)><script>alert(2)</script>'

test('messages are produced, shown, searched, sent again and exported', async () => {
  await cluster.trimaran(['topic', 'create', 'events', '--partitions', '3', '--replication-factor', '3'])
  const page = await browser.open(cluster, { hash: '#/topics/events' })
  await page.addInitScript(watchSockets)
  await page.reload()
  await page.getByText('No messages here').waitFor()
  const produce = async (value, key, header) => {
    await page.getByRole('button', { name: 'Produce', exact: true }).click()
    const dialog = page.getByRole('dialog')
    await dialog.getByLabel('Value', { exact: true }).fill(value)
    if (key) await dialog.getByLabel('Key', { exact: true }).fill(key)
    if (header) {
      await dialog.getByRole('button', { name: 'Add a header' }).click()
      await dialog.getByLabel("Header's name").fill(header)
      await dialog.getByLabel("Header's value").fill(header)
    }
    await page.evaluate(() => globalThis.settled(22))
    await dialog.getByRole('button', { name: 'Send' }).click()
    await dialog.waitFor({ state: 'detached' })
  }
  await go(page, '#/topics/events?from=live')
  await page.getByText('Waiting for messages').waitFor()
  await page.waitForTimeout(500) // the tail asks where the end is
  await produce(hostile, hostile, hostile)
  await row(page, hostile.slice(0, 20)).first().waitFor()
  await produce('{"a":{"b":[1,2,{"c":"deep"}]},"n":12,"big":9007199254740993}', 'json-key')
  await row(page, 'json-key').waitFor()
  // Something else may have the machine at the time: the best time of five counts. What is asked for, and how soon it is
  // drawn once it is there, has to be so each time.
  let best = Infinity
  let most = 0
  for (let i = 0; i < 5; i++) {
    await page.waitForTimeout(250) // what came before holds nothing back then
    // Seen by the page itself, so that this process's own turns do not count.
    const seen = page.evaluate(text => globalThis.sendToTail(text), `quick-${i}`)
    await produce(`quick-${i}`, 'quick')
    const { ms, frames, asked, opened } = await seen
    best = Math.min(best, ms)
    most = Math.max(most, frames)
    assert.deepEqual({ asked, opened }, { asked: [0], opened: 0 }, 'one Produce, on a connection that is there')
  }
  console.log(`# from "Send" to the tail ${Math.round(best)} ms; drawn ${most} frames after it came at most`)
  assert.ok(best <= 500, `${best} ms`)
  assert.ok(most <= 6, `${most} frames`)
  const messages = 2 + (await row(page, 'quick').count())

  await row(page, 'json-key').click()
  await page.locator('.detail .json').getByText('"deep"').waitFor({ state: 'attached' })
  await page.locator('.detail .json').getByText('9007199254740993', { exact: true }).waitFor()
  await page.locator('.detail').getByRole('button', { name: 'Hex' }).first().click()
  await page.locator('.detail pre.hex').getByText('7b 22 61').waitFor()
  await page.locator('.detail .json, .detail pre').first().waitFor()
  await page.keyboard.press('Escape')
  await row(page, hostile.slice(0, 20)).first().click()
  await page.locator('.detail dd', { hasText: hostile }).waitFor()
  assert.equal(await page.locator('main img, main script').count(), 0)

  await page.getByRole('button', { name: 'Send a copy' }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Send' }).click()
  await until(async () => (await row(page, hostile.slice(0, 20)).count()) === 2)

  await go(page, '#/topics/events?q=key:json')
  await until(async () => (await row(page, '').count()) === 1)
  await go(page, '#/topics/events?q=/DEEP%22|nothing/i')
  await until(async () => (await row(page, '').count()) === 1)
  await go(page, '#/topics/events?q=nowhere')
  await page.getByText(`${messages + 1} messages were looked at`).waitFor()
  await go(page, '#/topics/events?q=.n%3E11')
  await until(async () => (await row(page, '').count()) === 1)
  await go(page, '#/topics/events?q=.big%3D9007199254740993')
  await until(async () => (await row(page, '').count()) === 1)
  await go(page, '#/topics/events?q=.big%3D9007199254740992')
  await page.getByText('Nothing fits').waitFor()
  await go(page, '#/topics/events?from=earliest')
  await until(async () => (await row(page, '').count()) === messages + 1)
  for (const how of ['jsonl', 'csv']) {
    const download = page.waitForEvent('download')
    await page.getByLabel('Export what is listed').selectOption(how)
    const file = await download
    assert.equal(file.suggestedFilename(), `events.${how}`)
    const text = readFileSync(await file.path(), 'utf8')
    assert.ok(text.includes('json-key'))
    if (how === 'jsonl') assert.equal(text.trim().split('\n').map(l => JSON.parse(l)).filter(m => m.value === hostile).length, 2)
  }
  await browser.close(page)
})

test('the newest come first, older ones on demand, from an offset and a time', async () => {
  await cluster.trimaran(['topic', 'create', 'numbers', '--partitions', '1', '--replication-factor', '3'])
  await cluster.trimaran(['produce', 'numbers'], Array.from({ length: 350 }, (_, i) => `number ${i}\n`).join(''))
  const page = await browser.open(cluster, { hash: '#/topics/numbers' })
  await row(page, 'number 349').waitFor()
  await until(async () => (await page.locator('.rows .body .row').first().textContent()).endsWith('number 349'))
  await page.getByText('100 messages').waitFor()
  await page.getByRole('button', { name: 'Older' }).click()
  await page.getByText('200 messages').waitFor()
  await go(page, '#/topics/numbers?from=offset&at=340')
  await until(async () => (await page.locator('.rows .body .row').count()) === 10)
  await row(page, 'number 340').waitFor()
  await go(page, '#/topics/numbers?from=time&at=2020-01-01T00:00:00')
  await page.locator('.rows .body .row').first().getByText('number 0', { exact: true }).waitFor()
  await browser.close(page)
})

test('a group shows members and lag, and its offsets are reset as previewed', async () => {
  const name = `readers ${hostile}`
  await cluster.trimaran(['consume', 'numbers', '--group', name, '--max-messages', '50'])
  const page = await browser.open(cluster, { hash: '#/groups' })
  await page.getByRole('link', { name }).click()
  await page.getByRole('heading', { name }).waitFor()
  await page.locator('td', { hasText: 'numbers' }).waitFor()
  await until(async () => (await page.locator('.now').textContent()) === '300', 20_000)
  await until(() => page.getByRole('button', { name: 'Reset offsets' }).isEnabled())
  await page.getByRole('button', { name: 'Reset offsets' }).click()
  const dialog = page.getByRole('dialog')
  await dialog.locator('tbody tr', { hasText: '50' }).waitFor()
  await dialog.getByLabel('Go on at').selectOption('shift')
  await dialog.getByLabel('Records').fill('-20')
  await dialog.locator('tbody strong', { hasText: '30' }).waitFor()
  await dialog.getByRole('button', { name: 'Set these offsets' }).click()
  await dialog.waitFor({ state: 'detached' })
  await until(async () => (await page.locator('.now').textContent()) === '320')
  await page.getByRole('button', { name: 'Delete' }).click()
  await dialog.getByLabel('Type the name').fill(name)
  await dialog.getByRole('button', { name: 'Delete' }).click()
  await page.getByText('No groups yet').waitFor()
  await browser.close(page)
})

test('who is in a group is shown with what he has, and its offsets are not reset meanwhile', async () => {
  const member = cluster.spawn(['consume', 'numbers', '--group', 'there'])
  const page = await browser.open(cluster, { hash: '#/groups/there' })
  try {
    await page.getByText('Stable').waitFor()
    await page.locator('.panel', { hasText: 'Members' }).locator('tr', { hasText: '127.0.0.1' }).getByText('numbers 0').waitFor()
    await page.getByText('1 member', { exact: true }).waitFor()
    assert.ok(await page.getByRole('button', { name: 'Reset offsets' }).isDisabled())
    assert.ok(await page.getByRole('button', { name: 'Delete' }).isDisabled())
    for (const [theme, width] of [['light', 1280], ['dark', 360]]) {
      await page.setViewportSize({ width, height: 720 })
      await page.emulateMedia({ colorScheme: theme })
      await audit(page, `group ${theme}`)
    }
    member.kill('SIGINT')
    await until(() => page.getByRole('button', { name: 'Reset offsets' }).isEnabled(), 60_000)
    await page.getByText('Nobody is in the group').waitFor()
  } finally {
    member.kill('SIGKILL')
  }
  await browser.close(page)
})

test('a node is drained and resumed', async () => {
  const page = await browser.open(cluster, { hash: '#/nodes' })
  const card = page.locator('.panel', { has: page.getByRole('heading', { name: 'n2' }) })
  await card.getByRole('button', { name: 'Drain' }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Drain' }).click()
  await card.getByText('draining').waitFor()
  await card.getByRole('button', { name: 'Resume' }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Resume' }).click()
  await card.getByText('serves').waitFor()
  await browser.close(page)
})

test('access says that this cluster judges no rights', async () => {
  const page = await browser.open(cluster, { hash: '#/access/rights' })
  await page.getByText('This cluster judges no rights').waitFor()
  await go(page, '#/access')
  await page.getByText('No users yet').waitFor()
  await browser.close(page)
})

test('pages are usable by keyboard and for assistive technology, in both themes, at 360 pixels', async () => {
  for (const [theme, width] of [['light', 1280], ['dark', 360]]) {
    const page = await browser.open(cluster, { theme, width, height: 720 })
    await page.locator('.boat .hull').first().waitFor()
    for (const hash of ['#/', '#/topics', '#/topics?create=1', '#/topics/events?from=earliest', '#/topics/events/partitions', '#/topics/events/configuration', '#/groups', '#/nodes', '#/access', '#/access/rights', '#/access/tokens', '#/login', '#/topics/events?from=live', '#/topics?q=nothing', '#/nowhere']) {
      await go(page, hash)
      await page.waitForTimeout(700)
      if (hash.includes('earliest')) await page.locator('.rows .body .row').first().click()
      await audit(page, `${hash} ${theme}`)
      if (hash.includes('create')) await page.keyboard.press('Escape')
    }
    await go(page, '#/topics/events')
    await page.getByRole('button', { name: 'Produce', exact: true }).click()
    await audit(page, `produce ${theme}`)
    await page.keyboard.press('Escape')
    await page.getByRole('button', { name: 'Delete this topic' }).click()
    await audit(page, `delete ${theme}`)
    await page.keyboard.press('Escape')
    await browser.close(page)
  }
  const page = await browser.open(cluster, { hash: '#/topics' })
  await page.locator('.rows .body .row').first().waitFor()
  await page.keyboard.press('/')
  await page.keyboard.type('numb')
  await until(async () => (await page.locator('.rows .body .row').count()) === 1)
  await page.locator('.rows .body a').focus()
  await page.keyboard.press('Enter')
  await page.getByRole('heading', { name: 'numbers' }).waitFor()
  await browser.close(page)
})

test('the policy holds: no markup, code or style out of text, and nothing from elsewhere', async () => {
  const page = await browser.open(cluster)
  await page.locator('.boat .hull').first().waitFor()
  const tried = await page.evaluate(async other => {
    const said = {}
    const tries = {
      markup: () => void (document.body.innerHTML = '<p>'), adjacent: () => document.body.insertAdjacentHTML('beforeend', '<p>'), write: () => document.write('<p>'), parsed: () => void (document.createElement('iframe').srcdoc = '<p>'),
      eval: () => eval('1'), code: () => new Function('1')(), timer: () => setTimeout('globalThis.ran = 1'), policy: () => trustedTypes.createPolicy('x', {}), script: () => void (document.createElement('script').src = '/x.js'),
      fetch: () => fetch(other), socket: () => new Promise((done, failed) => { const ws = new WebSocket(other.replace('http', 'ws')); ws.onopen = done; ws.onerror = () => failed(new Error('refused')) }),
      worker: () => new Promise((done, failed) => { const w = new Worker(URL.createObjectURL(new Blob(['1']))); w.onmessage = done; w.onerror = () => failed(new Error('refused')) }),
      picture: () => new Promise((done, failed) => { const i = new Image(); i.onload = done; i.onerror = () => failed(new Error('refused')); i.src = other }),
      form: () => new Promise((done, failed) => { const f = document.createElement('form'); f.action = '/healthz'; document.body.append(f); addEventListener('pagehide', done); f.submit(); setTimeout(() => failed(new Error('refused')), 300) }),
    }
    // Not at once: what DevTools evaluates is not held to all of it.
    for (const [what, how] of Object.entries(tries)) said[what] = await new Promise(done => setTimeout(done)).then(how).then(() => 'done', e => e.name)
    const styled = document.createElement('p')
    styled.setAttribute('style', 'position: fixed')
    document.body.append(styled)
    said.style = getComputedStyle(styled).position === 'fixed' ? 'done' : 'refused'
    return said
  }, cluster.url(1).replace('127.0.0.1', '127.0.0.2'))
  for (const [what, said] of Object.entries(tried)) assert.notEqual(said, 'done', what)
  await page.context().close()
})
