/** What both decoders share: checks of single values, and the texts of their reports. */
import type { LoadBalancerIngress, Protocol, ServicePortSpec, SlicePort } from '../../api/objects.ts';

/** Shared by all objects with nothing in a list. */
export const none: readonly never[] = Object.freeze([]);

export const serviceNameLabel = 'kubernetes.io/service-name';
export const zoneLabel = 'topology.kubernetes.io/zone';
export const triggerTimeAnnotation = 'endpoints.kubernetes.io/last-change-trigger-time';
export const initialEventsEndAnnotation = 'k8s.io/initial-events-end';

/** sessionAffinityConfig.clientIP.timeoutSeconds where a Service names none (core/v1 defaults). */
export const defaultAffinitySeconds = 10800;

/** Called with the field's path inside the entry (`port`, `protocol`; empty for the entry itself). */
export type RejectEntry = (field: string, message: string) => void;

export function isPort(value: number): boolean {
  return value >= 1 && value <= 65535;
}

/** Absent is TCP. */
export function toProtocol(value: string): Protocol | undefined {
  if (value === 'TCP' || value === '') return 'TCP';
  return value === 'UDP' || value === 'SCTP' ? value : undefined;
}

export function servicePort(
  name: string,
  protocol: string,
  port: number,
  nodePort: number,
  reject: RejectEntry,
): ServicePortSpec | undefined {
  const known = toProtocol(protocol);
  if (known === undefined) reject('protocol', `unknown protocol ${quote(protocol)}`);
  else if (!isPort(port)) reject('port', `${port} is not a port (1-65535)`);
  else if (nodePort !== 0 && !isPort(nodePort)) reject('nodePort', `${nodePort} is not a port (1-65535)`);
  else return { name, protocol: known, port, nodePort };
  return undefined;
}

export function slicePort(
  name: string | null,
  protocol: string,
  port: number | null,
  reject: RejectEntry,
): SlicePort | undefined {
  const known = toProtocol(protocol);
  if (known === undefined) reject('protocol', `unknown protocol ${quote(protocol)}`);
  // 0 is left to the service model, which treats it as no port at all.
  else if (port !== null && port !== 0 && !isPort(port)) reject('port', `${port} is not a port (1-65535)`);
  else return { name, protocol: known, port };
  return undefined;
}

export function ingress(ip: string, ipMode: string | undefined): LoadBalancerIngress {
  return { ip, ipMode };
}

export function quote(value: unknown): string {
  const text = JSON.stringify(value) ?? 'undefined';
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/** RFC 3339 with seconds or fractions, in milliseconds since the epoch; 0 if it is not one. */
export function parseTime(value: string): number {
  if (!/^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/.test(value)) return 0;
  const time = Date.parse(value);
  // Go's zero time (year 1) is how an absent time is written.
  return Number.isNaN(time) || value.startsWith('0001-') ? 0 : time;
}
