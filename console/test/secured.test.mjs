// A cluster that wants to know who comes, and judges rights.
import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { Browser, Cluster, audit, go, until } from './harness.mjs'

let cluster
let browser
before(async () => {
  cluster = await Cluster.start(1, '--sasl-mechanisms', 'SCRAM-SHA-512,SCRAM-SHA-256,OAUTHBEARER', '--authorize', '--super-users', 'User:admin')
  cluster.brokers = `unix:${cluster.dir}/n1`
  for (const user of ['admin', 'alice', 'watcher']) await cluster.trimaran(['user', 'create', user, '--password-stdin'], `${user}-password\n`)
  await cluster.trimaran(['topic', 'create', 'events', '--partitions', '2'])
  await cluster.trimaran(['topic', 'create', 'secret'])
  await cluster.trimaran(['acl', 'add', '--principal', 'User:alice', '--topic', 'events', '--operation', 'read'])
  // The watcher sees all and may change nothing.
  for (const [what, ...operations] of [['--cluster', 'describe', 'describe-configs'], ['--topic=*', 'describe', 'describe-configs'], ['--group=*', 'describe']]) {
    await cluster.trimaran(['acl', 'add', '--principal', 'User:watcher', what, ...operations.flatMap(o => ['--operation', o])])
  }
  browser = await Browser.start()
})
after(async () => {
  await browser?.end()
  await cluster?.end()
})

async function login(page, user, password) {
  await page.getByLabel('User', { exact: true }).fill(user)
  await page.getByLabel('Password', { exact: true }).fill(password)
  await page.getByRole('button', { name: 'Log in' }).click()
}

/** In both themes, and on a phone. */
async function both(page, name) {
  for (const [colorScheme, width] of [['light', 1280], ['dark', 360]]) {
    await page.setViewportSize({ width, height: 860 })
    await page.emulateMedia({ colorScheme })
    const cut = await page.evaluate(() => [...document.querySelectorAll('.panel button')].filter(b => b.getBoundingClientRect().right > innerWidth && !b.closest('.scroll')).length)
    assert.equal(cut, 0, `${name}: buttons beyond the edge at ${width} pixels`)
    await audit(page, `${name} ${colorScheme}`)
  }
  await page.setViewportSize({ width: 1280, height: 860 })
  await page.emulateMedia({ colorScheme: 'light' })
}

test('strangers get the page and nothing else, by no prompt of the browser', async () => {
  const answer = await fetch(cluster.url(), { headers: { Accept: 'text/html' } })
  assert.equal(answer.status, 200)
  assert.equal(answer.headers.get('WWW-Authenticate'), null)
  const page = await browser.open(cluster)
  await page.getByRole('heading', { name: 'Come aboard' }).waitFor()
  await login(page, 'admin', 'wrong-password')
  await page.getByRole('alert').getByText('SASL_AUTHENTICATION_FAILED').waitFor()
  await login(page, 'admin', 'admin-password')
  await page.getByRole('heading', { name: 'One hull, one boat' }).waitFor()
  assert.deepEqual(await page.evaluate(() => [Object.keys(localStorage), Object.keys(sessionStorage), document.cookie]), [[], [], ''])

  await go(page, '#/access')
  await page.getByRole('button', { name: 'Create user' }).click()
  const dialog = page.getByRole('dialog')
  await dialog.getByLabel('Name').fill('<b>bob</b>')
  await dialog.getByLabel('Password').fill('bob-password')
  await dialog.getByRole('button', { name: 'Create' }).click()
  await page.getByRole('link', { name: '<b>bob</b>' }).waitFor()
  await page.getByRole('button', { name: 'New password of <b>bob</b>' }).click()
  await dialog.getByLabel('Password').fill('another-password')
  await dialog.getByRole('button', { name: 'Set' }).click()
  await dialog.waitFor({ state: 'detached' })
  const bob = await browser.open(cluster)
  await bob.getByRole('heading', { name: 'Come aboard' }).waitFor()
  await login(bob, '<b>bob</b>', 'bob-password')
  await bob.getByRole('alert').getByText('SASL_AUTHENTICATION_FAILED').waitFor()
  await until(async () => {
    await login(bob, '<b>bob</b>', 'another-password')
    return bob.getByText('Log out').waitFor({ timeout: 3_000 }).then(() => true, () => false)
  })
  await browser.close(bob)
  await both(page, 'users')
  await go(page, '#/access/rights')
  await page.locator('tr', { hasText: 'User:alice' }).waitFor()
  await both(page, 'rights')
  await page.getByRole('button', { name: 'Add' }).click()
  await dialog.getByLabel('Who', { exact: true }).fill('User:<b>bob</b>')
  await dialog.getByLabel('Name', { exact: true }).fill('events')
  await dialog.getByRole('button', { name: 'Add' }).click()
  await page.locator('tr', { hasText: 'User:<b>bob</b>' }).waitFor()
  await page.getByRole('button', { name: /Take away: User:<b>bob/ }).click()
  await until(async () => (await page.locator('tr', { hasText: 'User:<b>bob</b>' }).count()) === 0)
  await go(page, '#/access/tokens')
  await page.getByLabel('Name', { exact: true }).fill('events')
  await page.getByRole('button', { name: 'Issue' }).click()
  await page.getByText('This is shown once').waitFor()
  await both(page, 'tokens')
  const token = await page.locator('.issued pre').textContent()
  const id = await page.locator('.issued code').first().textContent()

  // Whoever gets it in an address is in, and it does not stay there.
  const holder = await browser.open(cluster, { hash: `#token=${token}` })
  await holder.getByText('Log out').waitFor()
  assert.equal(await holder.evaluate(() => location.href + JSON.stringify(history.state)), `${cluster.url()}#/null`)
  await go(holder, '#/topics')
  await until(async () => (await holder.locator('.rows .body .row').count()) === 1)
  await go(page, '#/access/tokens')
  await page.getByText('None is revoked').waitFor()
  await page.getByRole('button', { name: 'Revoke', exact: true }).click()
  await dialog.getByLabel('Which').fill(id)
  await dialog.getByRole('button', { name: 'Revoke' }).click()
  await page.locator('td', { hasText: id }).waitFor()
  await holder.getByRole('heading', { name: 'Come aboard' }).waitFor()
  await holder.getByRole('alert').getByText('SASL_AUTHENTICATION_FAILED').waitFor()
  // By the same address in the same page, which loads nothing.
  await holder.evaluate(t => void (location.hash = `#token=${t}`), token)
  await holder.getByRole('alert').getByText('SASL_AUTHENTICATION_FAILED').waitFor()
  assert.equal(await holder.evaluate(() => location.hash), '#/')
  await browser.close(holder)
  await go(page, '#/access')
  await page.getByRole('button', { name: 'Delete user <b>bob</b>' }).click()
  await dialog.getByLabel('Type the name').fill('<b>bob</b>')
  await dialog.getByRole('button', { name: /^Delete/ }).click()
  await until(async () => (await page.getByRole('link', { name: '<b>bob</b>' }).count()) === 0)
  await page.getByRole('button', { name: 'Log out' }).click()
  await page.getByRole('heading', { name: 'Come aboard' }).waitFor()
  await page.getByText('not logged in').waitFor()
  await both(page, 'login')
  await browser.close(page)
})

// What is secret and was planted on the way is looked for wherever it could be kept or sent.
test('what is secret stays in the page', async () => {
  const page = await browser.open(cluster, { hash: '#/access' })
  const sent = []
  const watch = w => {
    w.on('framesent', f => sent.push(Buffer.from(f.payload)))
    w.on('framereceived', f => sent.push(Buffer.from(f.payload)))
  }
  page.on('websocket', watch)
  page.on('request', r => sent.push(Buffer.from(r.url() + JSON.stringify(r.headers()) + (r.postData() ?? ''))))
  await page.getByRole('heading', { name: 'Come aboard' }).waitFor()
  await login(page, 'admin', 'planted-wrong-1')
  await page.getByRole('alert').getByText('SASL_AUTHENTICATION_FAILED').waitFor()
  await login(page, 'admin', 'admin-password')
  await page.getByRole('button', { name: 'Create user' }).click()
  const dialog = page.getByRole('dialog')
  await dialog.getByLabel('Name').fill('carol')
  await dialog.getByLabel('Password').fill('planted-carol-2')
  await dialog.getByRole('button', { name: 'Create' }).click()
  await page.getByRole('link', { name: 'carol' }).waitFor()
  await page.getByRole('button', { name: 'Log out' }).click()
  await page.getByRole('heading', { name: 'Come aboard' }).waitFor()
  await login(page, 'carol', 'planted-carol-2')
  await page.getByText('Log out').waitFor()
  const kept = await page.evaluate(async () => JSON.stringify([
    { ...localStorage }, { ...sessionStorage }, document.cookie, location.href, history.state, document.documentElement.outerHTML, (await indexedDB.databases?.()) ?? [], await caches.keys(),
  ]))
  const files = readdirSync(cluster.dir, { recursive: true, withFileTypes: true }).filter(f => f.isFile()).map(f => join(f.parentPath ?? f.path, f.name))
  const metrics = await (await fetch(cluster.url() + 'metrics')).text()
  for (const secret of ['planted-wrong-1', 'planted-carol-2', 'admin-password']) {
    assert.ok(!kept.includes(secret), `${secret} is kept in the page`)
    assert.ok(!sent.some(b => b.includes(secret)), `${secret} was sent`)
    assert.ok(!metrics.includes(secret), `${secret} is in the metrics`)
    for (const file of files) assert.ok(!readFileSync(file).includes(secret), `${secret} is in ${file}`)
  }
  assert.ok(sent.some(b => b.includes('carol')) && files.some(f => readFileSync(f).includes('carol')), 'what is sent and kept was looked through')
  await browser.close(page)
})

test('who may only read has no buttons to write, and does not see what is not his', async () => {
  const page = await browser.open(cluster, { hash: '#/topics' })
  await page.getByRole('heading', { name: 'Come aboard' }).waitFor()
  await login(page, 'alice', 'alice-password')
  await page.locator('.rows .body .row', { hasText: 'events' }).waitFor()
  assert.equal(await page.locator('.rows .body .row').count(), 1)
  await go(page, '#/topics/events')
  await page.getByText('No messages here').waitFor()
  for (const name of ['Produce', 'Add partitions', 'Delete this topic']) assert.equal(await page.getByRole('button', { name, exact: true }).count(), 0, name)
  await go(page, '#/topics/secret')
  await page.getByText(/You may not see this topic|There is no such topic/).waitFor()
  await go(page, '#/access')
  await page.getByText('You have no right to see or do this').waitFor()
  await go(page, '#/')
  await page.getByRole('heading', { name: /boat/ }).waitFor()
  await browser.close(page)
})

test('who sees everything and may change nothing has no button for that, on any page', async () => {
  await cluster.trimaran(['produce', 'events'], 'one\n')
  await cluster.trimaran(['consume', 'events', '--group', 'readers', '--max-messages', '1'])
  const pages = {
    '#/topics': '2 topics', '#/topics/events': 'You may not read this topic', '#/topics/events/partitions': 'leads', '#/topics/events/configuration': 'retention.ms', '#/groups/readers': 'Committed',
    '#/nodes': 'serves', '#/access': 'alice', '#/access/rights': 'User:alice', '#/access/tokens': 'Revoked',
  }
  const buttons = {}
  for (const user of ['admin', 'watcher']) {
    const page = await browser.open(cluster)
    await page.getByRole('heading', { name: 'Come aboard' }).waitFor()
    await login(page, user, `${user}-password`)
    await page.getByRole('heading', { name: /boat/ }).waitFor()
    buttons[user] = {}
    for (const [hash, text] of Object.entries(pages)) {
      await go(page, hash)
      if (user === 'watcher' || hash !== '#/topics/events') await page.locator('main', { hasText: text }).waitFor()
      await page.waitForTimeout(500) // buttons would come with another answer
      buttons[user][hash] = await page.locator('main button.button').evaluateAll(all => all.map(b => b.getAttribute('aria-label') ?? b.textContent))
    }
    await browser.close(page)
  }
  // Whoever may log in may issue a token, which has no more rights than he.
  for (const [hash, names] of Object.entries(buttons.watcher)) assert.deepEqual(names.filter(n => n !== 'Issue'), [], hash)
  for (const [hash, names] of Object.entries(buttons.admin)) assert.ok(names.some(n => n !== 'Issue'), `${hash}: the admin has buttons`)
})

test('with --console=false a browser gets what curl gets', async () => {
  const plain = await Cluster.start(1, '--console=false')
  try {
    const answer = await fetch(plain.url(), { headers: { Accept: 'text/html' } })
    assert.equal(answer.headers.get('Content-Security-Policy'), null)
    assert.match(await answer.text(), /^Trimaran .*: a log that Kafka clients can use/)
  } finally {
    await plain.end()
  }
})
