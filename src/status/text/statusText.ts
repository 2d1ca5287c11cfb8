/** `pointsman status` as text, for a terminal of 80 columns. */
import type { Endpoint, Frontend, Route, RoutingTable, Verdict } from '../../services/types.ts';
import { conditionOf } from '../changeLog.ts';
import { connectionFindings, type ConnectionsDocument } from '../connections.ts';
import type { ChangeRecord, CountersDocument, FamilyStatus, StatusDocument } from '../documents.ts';
import { columns, count, duration, wrap, type Row } from './table.ts';

/** Longer names of service ports get a line of their own. */
const nameWidth = 28;
/** Where there is a line for each service port. */
const wideNameWidth = 48;
/** Service ports named one by one. */
const namesShown = 3;

/** Two lines of who and how, then families, syncs and problems. */
export function statusLines(status: StatusDocument): string[] {
  const now = Date.parse(status.now);
  const { families } = status;
  const listed = families.every(({ sync }) => sync.listed);
  const state = !status.healthy
    ? 'NOT HEALTHY: rules are not up to date'
    : listed
      ? 'healthy'
      : 'starting: waiting for the API server';
  const zone = status.zone === '' ? '' : `, zone ${status.zone}`;
  const lines = [
    `${status.node}  ${status.mode} mode  ${state}`,
    `pointsman ${status.version} as kube-proxy ${status.kubernetesVersion}, ` +
      `up ${duration(now - Date.parse(status.started))}, process ${status.pid}${zone}`,
  ];
  if (!status.nodeEligible)
    lines.push('Load balancers are told to leave this node alone: it is unknown or being removed.');
  lines.push('', ...familyTable(families), '');
  for (const family of families) lines.push(...syncLines(family, now));
  lines.push(...unservedLines(families));
  return [...lines, ...problemLines(status)];
}

function unservedLines(families: readonly FamilyStatus[]): string[] {
  // A Service of two families has the same name in both.
  const known = new Set(families.flatMap(({ unservedPorts }) => unservedPorts));
  const areAllKnown = families.every((family) => family.unserved === family.unservedPorts.length);
  const unserved = areAllKnown ? known.size : families.reduce((sum, family) => sum + family.unserved, 0);
  if (unserved === 0) return [];
  const names = [...known].slice(0, namesShown);
  const lines = [
    `${count(unserved, 'service port')} without an endpoint: connections are refused.`,
    ...names.map((name) => `  ${name}`),
  ];
  if (unserved > names.length) lines.push(`  … and ${unserved - names.length} more`);
  return lines;
}

function familyTable(families: readonly FamilyStatus[]): string[] {
  const head: Row = ['', 'services', 'ports', 'endpoints', 'ready', 'draining', 'not ready', 'here'];
  const rows = families.map(({ family, services, servicePorts, endpoints }): Row => {
    const { total, ready, draining, notReady, local } = endpoints;
    return [family, ...[services, servicePorts, total, ready, draining, notReady, local].map(String)];
  });
  return columns([head, ...rows], [1, 2, 3, 4, 5, 6, 7]);
}

function syncLines({ family, sync }: FamilyStatus, now: number): string[] {
  const { lastSuccess, lastDuration, lastWasFull, lastFailure, syncs, failures, listed } = sync;
  if (!listed) return [`Sync ${family}: none yet, Services and EndpointSlices are not listed`];
  const failed = failures === 0 ? 'none failed' : `${failures} failed`;
  const kind = lastWasFull ? 'full' : 'partial';
  const last =
    lastSuccess === null
      ? 'none has succeeded'
      : `last ${duration(Math.max(0, now - Date.parse(lastSuccess)))} ago (${kind}, ${duration(lastDuration ?? 0)})`;
  const line = `Sync ${family}: ${last}; ${count(syncs, 'sync')}, ${failed}`;
  if (lastFailure === null) return [line];
  const since = duration(now - Date.parse(lastFailure.time));
  return [line, `  last failure ${since} ago: ${lastFailure.error}`];
}

function problemLines({ problems, moreProblems }: StatusDocument): string[] {
  if (problems.length === 0) return [];
  const lines = ['', `Skipped (${count(problems.length + moreProblems, 'problem')}):`];
  for (const { object, field, message } of problems)
    lines.push(`  ${object} ${field}`.trimEnd(), `    ${message}`);
  if (moreProblems > 0) lines.push(`  … and ${moreProblems} more`);
  return lines;
}

/** Newest last. */
export function changeLines(changes: readonly ChangeRecord[], forgotten = 0): string[] {
  if (changes.length === 0) return ['No changes since the start.'];
  const head: Row = ['TIME', 'API->NODE', '->KERNEL', 'SERVICE PORT', 'CHANGE'];
  const rows = changes.map((change): Row => {
    const { triggered, received, milliseconds, failures } = change;
    const wait =
      milliseconds === null
        ? failures > 0
          ? `${failures} failed`
          : 'waiting'
        : duration(milliseconds) + (failures > 0 ? ` (${failures} failed)` : '');
    return [
      received.slice(11, 19),
      triggered === null ? '-' : duration(Math.max(0, Date.parse(received) - Date.parse(triggered))),
      wait,
      change.id,
      changeText(change),
    ];
  });
  const lines = columns([head, ...rows], [1, 2], '', { column: 3, width: nameWidth });
  return forgotten > 0 ? [...lines, `(${forgotten} older ones are forgotten)`] : lines;
}

function changeText({ what, endpointsBefore, endpointsAfter, details }: ChangeRecord): string {
  if (what === 'removed') return 'removed';
  const shown = details.length <= 3 ? details.join(' ') : '';
  if (what === 'added') return `added, ${count(endpointsAfter, 'endpoint')}`;
  if (shown !== '') return shown;
  return endpointsBefore === endpointsAfter
    ? count(endpointsAfter, 'endpoint')
    : `${endpointsBefore} -> ${endpointsAfter} endpoints`;
}

/** One line for each service port. */
export function routeTable(
  tables: readonly RoutingTable[],
  counters: CountersDocument | undefined,
): string[] {
  const connections = new Map(
    counters?.services.map(({ id, family, connections: total }) => [`${family} ${id}`, total]),
  );
  const counted = counters !== undefined && counters.source !== 'none';
  const head: Row = [
    'SERVICE PORT',
    'ADDRESS',
    'READY',
    'ALL',
    'INSIDE',
    'OUTSIDE',
    ...(counted ? ['CONNECTIONS'] : []),
  ];
  const rows: Row[] = [];
  for (const { family, routes } of tables) {
    for (const { port, frontends, endpoints, internal, external, hasExternal } of routes.values()) {
      const [first] = frontends;
      const more = frontends.length > 1 ? ` +${frontends.length - 1}` : '';
      rows.push([
        port.id,
        (first === undefined ? '-' : frontendText(first)) + more,
        String(endpoints.filter(({ ready }) => ready).length),
        String(endpoints.length),
        internal,
        hasExternal ? external : '-',
        ...(counted ? [String(connections.get(`${family} ${port.id}`) ?? 0)] : []),
      ]);
    }
  }
  rows.sort(([a = ''], [b = '']) => (a < b ? -1 : a > b ? 1 : 0));
  return columns([head, ...rows], [2, 3, 6], '', { column: 0, width: wideNameWidth });
}

function frontendText({ kind, ip, port }: Frontend): string {
  if (kind === 'nodePort') return `node port ${port}`;
  return `${ip.includes(':') ? `[${ip}]` : ip}:${port}`;
}

const kindNames = {
  clusterIP: 'cluster IP',
  externalIP: 'external IP',
  loadBalancerIP: 'load balancer IP',
  nodePort: 'node port',
} as const;

/** Everything about one service port. */
export function routeLines(route: Route, counters: CountersDocument | undefined): string[] {
  const { port, frontends, lostFrontends, endpoints } = route;
  const addresses = frontends.map((frontend) =>
    frontend.kind === 'nodePort'
      ? frontendText(frontend)
      : `${kindNames[frontend.kind]} ${frontendText(frontend)}`,
  );
  const lines = [
    `${port.id}  ${port.family}`,
    `  at ${addresses.length === 0 ? 'no address' : addresses.join(', ')}`,
  ];
  for (const lost of lostFrontends) lines.push(`  NOT at ${frontendText(lost)}: an older Service has it`);
  lines.push(`  from inside:  ${verdictText(route.internal, route)}`);
  if (route.hasExternal) lines.push(`  from outside: ${verdictText(route.external, route)}`);
  if (port.sourceRanges.length > 0)
    lines.push(`  load balancer IPs only for ${port.sourceRanges.join(', ')}`);
  if (port.affinitySeconds > 0)
    lines.push(`  a client stays with its endpoint for ${duration(port.affinitySeconds * 1000)}`);
  if (port.healthCheckNodePort > 0) lines.push(`  health check at node port ${port.healthCheckNodePort}`);
  const mine = counters?.services.find(({ id, family }) => id === port.id && family === port.family);
  if (mine !== undefined || (counters !== undefined && counters.source !== 'none' && endpoints.length > 0)) {
    const hits = mine?.affinityHits === undefined ? '' : `, ${mine.affinityHits} of them by affinity`;
    lines.push(`  ${count(mine?.connections ?? 0, 'connection')} counted${hits}`);
  }
  for (const { id, family, reason, verdict, packets } of counters?.refused ?? []) {
    if (id !== port.id || family !== port.family || packets === 0) continue;
    lines.push(
      `  ${count(packets, 'packet')} ${verdict === 'drop' ? 'dropped' : 'rejected'}: ${reasonText(reason)}`,
    );
  }
  if (endpoints.length === 0) return [...lines, '  no endpoints'];
  return [...lines, ...endpointTable(route, counters)];
}

function endpointTable(route: Route, counters: CountersDocument | undefined): string[] {
  const { port, endpoints } = route;
  const counts = new Map(
    counters?.endpoints
      .filter(({ id, family }) => id === port.id && family === port.family)
      .map(({ endpoint, connections }) => [endpoint, connections]),
  );
  // Those of this service port may all be gone.
  const counted = (counters?.endpoints.length ?? 0) > 0;
  const inside = new Set(listOf(route, route.internal).map(({ key }) => key));
  const outside = new Set((route.hasExternal ? listOf(route, route.external) : []).map(({ key }) => key));
  const head: Row = ['ENDPOINT', 'STATE', 'USED', 'NODE', 'ZONE', 'POD', ...(counted ? ['CONNECTIONS'] : [])];
  const rows = endpoints.map((endpoint): Row => {
    const used = [...(inside.has(endpoint.key) ? ['in'] : []), ...(outside.has(endpoint.key) ? ['out'] : [])];
    return [
      endpoint.key,
      conditionOf(endpoint),
      used.length === 0 ? 'no' : used.join('+'),
      (endpoint.nodeName || '-') + (endpoint.isLocal ? '*' : ''),
      endpoint.zone || '-',
      endpoint.pod || '-',
      ...(counted ? [String(counts.get(endpoint.key) ?? 0)] : []),
    ];
  });
  return columns([head, ...rows], [6], '  ');
}

function listOf(route: Route, verdict: Verdict): readonly Endpoint[] {
  return verdict === 'cluster' ? route.cluster : verdict === 'local' ? route.local : [];
}

function verdictText(verdict: Verdict, route: Route): string {
  switch (verdict) {
    case 'cluster':
      return `one of ${count(route.cluster.length, 'endpoint')}`;
    case 'local':
      return `one of ${count(route.local.length, 'endpoint')} on this node (policy Local)`;
    case 'reject':
      return 'rejected: nobody serves it';
    case 'drop':
      return 'dropped: policy Local, and no endpoint on this node';
  }
}

const reasonTexts: Readonly<Record<string, string>> = {
  no_endpoints: 'no endpoints',
  no_local_endpoints: 'policy Local and no endpoint on this node',
  source_range: 'source not in loadBalancerSourceRanges',
  no_such_port: 'no such port at a cluster IP',
  no_such_service: 'address without a Service',
  localnet: 'from the wire to 127.0.0.0/8',
  no_endpoint_answers: 'no endpoint answered',
  socket_limit: 'too many open sockets',
  not_allowed: 'this client may not come here',
};

export function reasonText(reason: string): string {
  return reasonTexts[reason] ?? reason;
}

/** What counts of this mode and level leave out. */
export function noteLines(counters: CountersDocument | undefined, mode: string): string[] {
  if (counters === undefined) return [];
  const notes =
    counters.source === 'none'
      ? [`${mode} mode counts connections with --service-counters=services or endpoints.`]
      : counters.notes;
  return notes.flatMap((note) => wrap(`Note: ${note}`, 80));
}

/**
 * Open connections by service port and endpoint, and what is odd about them.
 * @param clients shown for each endpoint
 */
export function connectionLines(
  document: ConnectionsDocument,
  clients: number,
  width = Number.POSITIVE_INFINITY,
): string[] {
  const findings = connectionFindings(document);
  const lines = findings.flatMap((finding) => wrap(`! ${finding}`, width));
  if (lines.length > 0) lines.push('');
  if (document.services.length === 0) return [...lines, 'No connections to Services.'];
  for (const { id, family, open, endpoints } of document.services) {
    lines.push(`${id}  ${family}  ${open} open`);
    const rows = endpoints.map((endpoint): Row => [
      endpoint.endpoint,
      endpoint.condition,
      `${endpoint.open} open`,
      endpoint.opening === 0 ? '' : `${endpoint.opening} opening`,
      endpoint.closing === 0 ? '' : `${endpoint.closing} closing`,
      endpoint.pod,
    ]);
    const table = columns(rows, [2], '  ');
    for (const [i, endpoint] of endpoints.entries()) {
      lines.push(table[i] ?? '');
      for (const client of endpoint.clients.slice(0, clients))
        lines.push(`      ${client.address}  ${client.open}`);
      const rest = Math.max(0, endpoint.clients.length - clients) + endpoint.moreClients;
      if (clients > 0 && rest > 0) lines.push(`      … and ${rest} more clients`);
    }
  }
  return lines;
}
