/** `/healthz` and `/livez`, for load balancers and the kubelet. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { formatTime } from './goTime.ts';
import { notFound, pathOf, sendJSON } from './httpReply.ts';
import type { ProxyHealth } from './proxyHealth.ts';

export interface HealthReply {
  readonly status: 200 | 503;
  /** One line of JSON, keys in the order kube-proxy writes them. */
  readonly body: string;
}

/** What a probe is told at `now` (milliseconds since the epoch). `/healthz` also asks whether the node is eligible for traffic. */
export function healthReply(health: ProxyHealth, probe: 'healthz' | 'livez', now: number): HealthReply {
  const state = health.state(now);
  const eligible = probe === 'healthz' ? health.nodeEligible() : undefined;
  const ok = state.healthy && eligible !== false;
  const families: Record<string, { lastUpdated: string; healthy: boolean }> = {};
  for (const [family, one] of state.families)
    families[family] = { lastUpdated: formatTime(one.lastUpdated), healthy: one.healthy };
  const body = JSON.stringify({
    lastUpdated: formatTime(ok ? now : state.lastUpdated),
    currentTime: formatTime(now),
    // JSON.stringify leaves undefined out.
    nodeEligible: eligible,
    healthy: state.healthy,
    status: state.families.size === 0 ? undefined : families,
  });
  return { status: ok ? 200 : 503, body };
}

export interface HealthHandlerOptions {
  readonly health: ProxyHealth;
  /** Counts a probe. */
  readonly probed: (probe: 'healthz' | 'livez', status: number) => void;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
}

/** The request handler of the health server. */
export function healthHandler(options: HealthHandlerOptions) {
  return (request: IncomingMessage, response: ServerResponse): void => {
    const path = pathOf(request);
    if (path !== '/healthz' && path !== '/livez') return notFound(response);
    const probe = path === '/healthz' ? 'healthz' : 'livez';
    const reply = healthReply(options.health, probe, options.now());
    options.probed(probe, reply.status);
    sendJSON(response, reply.status, reply.body);
  };
}
