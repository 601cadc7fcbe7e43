// Okta's Node SDK, unchanged, against the simulated org: one line per call with its outcome.
//
//   node sdk.mjs PACKAGES URL TOKEN
//
// Exits 1 if a call ends otherwise than it should. What the SDK itself breaks stands in SDK_BREAKS with its reason.

import { createRequire } from 'node:module';

const [, , packages, url, token] = process.argv;
const { Client } = createRequire(`${packages}/`)('@okta/okta-sdk-nodejs');

// Calls that fail within the SDK whatever the server answers, each with its reason.
const SDK_BREAKS = {};

const USERS = 450; // what the org begins with
const failed = [];

const show = (name, isGood, outcome) => {
  const reason = SDK_BREAKS[name];
  const good = reason === undefined ? isGood : !isGood; // a row that is no longer true must go
  const verdict = reason === undefined ? (good ? 'ok' : 'FAILED') : `the SDK: ${reason}`;
  console.log(`${name.padEnd(36)} ${verdict.padEnd(8)} ${outcome}`);
  if (!good) failed.push(name);
};

const describe = (value) => {
  if (Array.isArray(value)) return `${value.length} items`;
  return ['id', 'status', 'label'].filter((part) => value?.[part]).map((part) => `${part}=${value[part]}`).join(' ');
};

// Awaits one call; shows and returns its result. A list is read to its end.
const call = async (name, ask, check = () => true) => {
  try {
    let value = await ask();
    if (typeof value?.each === 'function') {
      const items = [];
      await value.each((item) => { items.push(item); });
      value = items;
    }
    show(name, Boolean(check(value)), describe(value));
    return value;
  } catch (error) {
    show(name, false, `${error.name}: ${String(error.message).slice(0, 200)}`);
    return undefined;
  }
};

const refused = async (name, status, ask) => {
  try {
    await ask();
    show(name, false, 'not refused');
  } catch (error) {
    show(name, error.status === status, `refused: ${error.status} ${error.errorCode ?? ''}`);
  }
};

const isOrdered = (users, order) => {
  const logins = users.map((user) => user.profile.login.toLowerCase());
  const sorted = [...logins].sort();
  if (order === 'desc') sorted.reverse();
  return String(logins) === String(sorted);
};

const distinct = (users) => new Set(users.map((user) => user.id)).size;

const client = new Client({ orgUrl: url, token });
const { userApi, groupApi, applicationApi, systemLogApi, userTypeApi, schemaApi, userFactorApi } = client;

const person = (name) => ({
  firstName: name, lastName: 'Doe', email: `${name.toLowerCase()}@node.example`, login: `${name.toLowerCase()}@node.example`,
});

const everybody = USERS + 1; // and the administrator
const gone = await call('listUsers deactivated', () => userApi.listUsers({ search: 'status eq "DEPROVISIONED"' }));
const others = everybody - gone.length; // the plain list leaves these out
await call('listUsers', () => userApi.listUsers({ limit: 200 }), (users) => distinct(users) === others);
for (const sortOrder of ['asc', 'desc']) {
  const query = { search: 'profile.login pr', sortBy: 'profile.login', sortOrder, limit: 200 };
  await call(`listUsers ${sortOrder}`, () => userApi.listUsers(query),
    (users) => users.length === everybody && distinct(users) === everybody && isOrdered(users, sortOrder));
}
const types = await call('listUserTypes', () => userTypeApi.listUserTypes(), (found) => found.length === 2);
const password = { password: { value: 'Correct-horse-7' } };
const jane = await call('createUser', () => userApi.createUser({ body: { profile: person('Jane'), credentials: password } }),
  (user) => user.status === 'ACTIVE');
const carl = await call('createUser of a second type',
  () => userApi.createUser({ body: { profile: person('Carl'), type: { id: types[1].id } }, activate: false }),
  (user) => user.status === 'STAGED' && user.type.id === types[1].id);
await refused('createUser again', 400, () => userApi.createUser({ body: { profile: person('Jane') } }));
await call('getUser by login', () => userApi.getUser({ userId: 'jane@node.example' }), (user) => user.id === jane.id);
await refused('getUser that is not there', 404, () => userApi.getUser({ userId: 'nobody@node.example' }));
await call('updateUser', () => userApi.updateUser({ userId: jane.id, user: { profile: { department: 'Support' } } }),
  (user) => user.profile.department === 'Support');
await call('suspendUser', () => userApi.suspendUser({ userId: jane.id }));
await refused('suspendUser again', 400, () => userApi.suspendUser({ userId: jane.id }));
await call('unsuspendUser', () => userApi.unsuspendUser({ userId: jane.id }));
const locked = await fetch(`${url}/sandbox/lock_out/jane@node.example`, { method: 'POST' });
show('locked out', locked.status === 204, locked.status);
await call('unlockUser', () => userApi.unlockUser({ userId: jane.id }));
await call('activateUser', () => userApi.activateUser({ userId: carl.id, sendEmail: false }));
await call('reactivateUser', () => userApi.reactivateUser({ userId: carl.id, sendEmail: false }));
await call('resetFactors', () => userApi.resetFactors({ userId: jane.id }));
await call('listFactors', () => userFactorApi.listFactors({ userId: jane.id }));
await call('revokeUserSessions', () => userApi.revokeUserSessions({ userId: jane.id, oauthTokens: true }));

const night = { profile: { name: 'Evening shift', description: 'In the evening' } };
const group = await call('createGroup', () => groupApi.createGroup({ group: night }));
await call('getGroup', () => groupApi.getGroup({ groupId: group.id }), (found) => found.id === group.id);
await call('listGroups', () => groupApi.listGroups({ q: 'Evening' }), (found) => found.length === 1);
await call('assignUserToGroup', () => groupApi.assignUserToGroup({ groupId: group.id, userId: jane.id }));
await call('listGroupUsers', () => groupApi.listGroupUsers({ groupId: group.id }), (found) => found[0].id === jane.id);
await call('listUserGroups', () => userApi.listUserGroups({ userId: jane.id }), (found) => found.length === 2);

const bookmark = {
  name: 'bookmark', label: 'Evening rota', signOnMode: 'BOOKMARK', settings: { app: { requestIntegration: false, url: 'https://a.example/b' } },
};
const app = await call('createApplication', () => applicationApi.createApplication({ application: bookmark }));
const ofApp = { appId: app.id };
await call('listApplications', () => applicationApi.listApplications({ q: 'Evening rota' }), (found) => found.length === 1);
await call('assignUserToApplication',
  () => applicationApi.assignUserToApplication({ ...ofApp, appUser: { id: jane.id, scope: 'USER' } }));
await call('listApplicationUsers', () => applicationApi.listApplicationUsers(ofApp), (found) => found.length === 1);
await call('assignGroupToApplication',
  () => applicationApi.assignGroupToApplication({ ...ofApp, groupId: group.id, applicationGroupAssignment: { priority: 0 } }));
await call('listApplicationGroupAssignments', () => applicationApi.listApplicationGroupAssignments(ofApp),
  (found) => found[0].id === group.id);
await call('listAppLinks', () => userApi.listAppLinks({ userId: jane.id }));
await call('unassignApplicationFromGroup',
  () => applicationApi.unassignApplicationFromGroup({ ...ofApp, groupId: group.id }));
await call('unassignUserFromApplication',
  () => applicationApi.unassignUserFromApplication({ ...ofApp, userId: jane.id }));
await refused('deleteApplication active', 403, () => applicationApi.deleteApplication(ofApp));
await call('deactivateApplication', () => applicationApi.deactivateApplication(ofApp));
await call('deleteApplication', () => applicationApi.deleteApplication(ofApp));

const locker = { definitions: { custom: { id: '#custom', type: 'object', properties: { locker: { title: 'Locker', type: 'string' } } } } };
await call('updateUserProfile', () => schemaApi.updateUserProfile({ schemaId: 'default', userSchema: locker }));
await call('updateUser locker', () => userApi.updateUser({ userId: jane.id, user: { profile: { locker: 'L-1' } } }),
  (user) => user.profile.locker === 'L-1');

await call('unassignUserFromGroup', () => groupApi.unassignUserFromGroup({ groupId: group.id, userId: jane.id }));
await call('deleteGroup', () => groupApi.deleteGroup({ groupId: group.id }));
for (const user of [jane, carl]) {
  await call('deactivateUser', () => userApi.deactivateUser({ userId: user.id }));
  await call('deleteUser', () => userApi.deleteUser({ userId: user.id }));
}
await refused('getUser that was deleted', 404, () => userApi.getUser({ userId: jane.id }));
await call('listLogEvents', () => systemLogApi.listLogEvents({ filter: 'eventType eq "user.lifecycle.create"' }),
  (events) => events.length >= 2);

// Empties the window of one bucket; the SDK waits for the next one and asks again.
await call('getUser 120 times, 100 a window', async () => {
  const answers = [];
  for (let turn = 0; turn < 120; turn += 1) answers.push(await userApi.getUser({ userId: 'sam.admin@example.com' }));
  return answers;
}, (answers) => answers.length === 120);

console.log(`${failed.length} calls of Okta's Node SDK ended otherwise than they should: ${failed.join(', ') || 'none'}`);
process.exit(failed.length > 0 ? 1 : 0);
