// Administration, loaded with the pages that need it.
import { Admin } from 'trimaran/admin'
import { client, onConnect } from './link.js'

export let admin = new Admin(client)
onConnect.push(() => (admin = new Admin(client)))
