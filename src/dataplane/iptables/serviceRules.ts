/**
 * One route as rules: entries in the dispatch chains, and the chains of its own (KUBE-EXT, -FW, -SVC, -SVL, -SEP).
 *
 * filter has the refusals: a nat chain cannot drop, and only packets that nat did not translate still have the
 * frontend as their destination when they come to filter.
 */
import type { Route } from '../../services/types.ts';
import { endpointChains, pushChoice, pushEndpoint } from './endpointRules.ts';
import {
  externalServicesChain,
  markMasqChain,
  nodePortsChain,
  proxyFirewallChain,
  serviceHash,
  servicesChain,
} from './names.ts';
import { comment, type Rule } from '../../linux/iptables/rule.ts';
import { containsAddress, localhostNodePortsCounter, type Settings } from './settings.ts';

/** Entries of one route in chains that all routes share; within a route the order matters, between routes it does not. */
export interface DispatchRules {
  readonly filter: readonly Rule[];
  readonly nat: readonly Rule[];
}

/** The chains that belong to one route, all in table nat. */
export interface OwnRules {
  /** In the order in which they are declared. */
  readonly chains: readonly string[];
  readonly rules: readonly Rule[];
}

/** Facts about a route that several rules need. Inconsistent routes (a verdict without endpoints) count as refused. */
interface Shape {
  readonly hash: string;
  readonly internalChain: string | undefined;
  readonly externalChain: string | undefined;
  readonly extChain: string | undefined;
  readonly firewallChain: string | undefined;
  readonly refusal: string;
  readonly target: 'REJECT' | 'DROP';
}

function shapeOf(route: Route): Shape {
  const { port, hasAny } = route;
  const hash = serviceHash(port.name, port.protocol);
  const external = route.frontends.some((frontend) => frontend.kind !== 'clusterIP');
  const balanced = route.frontends.some((frontend) => frontend.kind === 'loadBalancerIP');
  const useExt = hasAny && external;
  return {
    hash,
    internalChain: policyChain(route, route.internal, hash),
    externalChain: policyChain(route, route.external, hash),
    extChain: useExt ? `KUBE-EXT-${hash}` : undefined,
    firewallChain: useExt && balanced && port.sourceRanges.length > 0 ? `KUBE-FW-${hash}` : undefined,
    refusal: comment(hasAny ? `${port.name} has no local endpoints` : `${port.name} has no endpoints`),
    target: hasAny ? 'DROP' : 'REJECT',
  };
}

function policyChain(route: Route, verdict: Route['internal'], hash: string): string | undefined {
  if (!route.hasAny) return undefined;
  if (verdict === 'cluster' && route.cluster.length > 0) return `KUBE-SVC-${hash}`;
  if (verdict === 'local' && route.local.length > 0) return `KUBE-SVL-${hash}`;
  return undefined;
}

export function dispatchRules(route: Route, settings: Settings): DispatchRules {
  const shape = shapeOf(route);
  const { name, healthCheckNodePort } = route.port;
  const filter: Rule[] = [];
  const nat: Rule[] = [];
  for (const frontend of route.frontends) {
    const proto = frontend.protocol.toLowerCase();
    const match = `-m ${proto} -p ${proto}`;
    const to = `${match} -d ${frontend.ip} --dport ${frontend.port}`;
    switch (frontend.kind) {
      case 'clusterIP':
        if (shape.internalChain === undefined) {
          filter.push({ chain: servicesChain, args: `${shape.refusal} ${to} -j ${shape.target}` });
        } else {
          nat.push({
            chain: servicesChain,
            args: `${comment(`${name} cluster IP`)} ${to} -j ${shape.internalChain}`,
          });
        }
        break;
      case 'externalIP':
        if (shape.extChain !== undefined) {
          nat.push({
            chain: servicesChain,
            args: `${comment(`${name} external IP`)} ${to} -j ${shape.extChain}`,
          });
        }
        if (shape.externalChain === undefined) {
          filter.push({ chain: externalServicesChain, args: `${shape.refusal} ${to} -j ${shape.target}` });
        }
        break;
      case 'loadBalancerIP':
        if (shape.extChain !== undefined) {
          nat.push({
            chain: servicesChain,
            args: `${comment(`${name} loadbalancer IP`)} ${to} -j ${shape.firewallChain ?? shape.extChain}`,
          });
        }
        if (shape.firewallChain !== undefined) {
          filter.push({
            chain: proxyFirewallChain,
            args: `${comment(`${name} traffic not accepted by ${shape.firewallChain}`)} ${to} -j DROP`,
          });
        }
        if (shape.externalChain === undefined) {
          filter.push({ chain: externalServicesChain, args: `${shape.refusal} ${to} -j ${shape.target}` });
        }
        break;
      case 'nodePort': {
        const said = `-m comment --comment ${name}`;
        if (shape.extChain !== undefined) {
          if (settings.localhostNodePorts && settings.countLocalhost) {
            nat.push({
              chain: nodePortsChain,
              args: `${said} ${match} -d 127.0.0.0/8 --dport ${frontend.port} -m nfacct --nfacct-name ${localhostNodePortsCounter} -j ${shape.extChain}`,
            });
          }
          nat.push({
            chain: nodePortsChain,
            args: `${said} ${match} --dport ${frontend.port} -j ${shape.extChain}`,
          });
        }
        if (shape.externalChain === undefined) {
          filter.push({
            chain: externalServicesChain,
            args: `${shape.refusal} -m addrtype --dst-type LOCAL ${match} --dport ${frontend.port} -j ${shape.target}`,
          });
        }
        break;
      }
    }
  }
  if (healthCheckNodePort !== 0) {
    filter.push({
      chain: nodePortsChain,
      args: `${comment(`${name} health check node port`)} -m tcp -p tcp --dport ${healthCheckNodePort} -j ACCEPT`,
    });
  }
  return { filter, nat };
}

/** `comments` false: endpoint rules go without them (large clusters: they cost kernel memory and loading time). */
export function ownRules(route: Route, settings: Settings, comments: boolean): OwnRules {
  const shape = shapeOf(route);
  const svc = `KUBE-SVC-${shape.hash}`;
  const svl = `KUBE-SVL-${shape.hash}`;
  const chains: string[] = [];
  const rules: Rule[] = [];
  if (shape.extChain !== undefined) chains.push(shape.extChain);
  if (shape.firewallChain !== undefined) chains.push(shape.firewallChain);
  if (route.cluster.length > 0) chains.push(svc);
  if (route.local.length > 0) chains.push(svl);

  pushMasquerade(rules, route, shape, settings);
  if (shape.extChain !== undefined) pushExternal(rules, route, shape, shape.extChain, settings);
  if (shape.firewallChain !== undefined && shape.extChain !== undefined) {
    pushFirewall(rules, route, shape.firewallChain, shape.extChain, settings);
  }
  const endpoints = endpointChains(route);
  if (route.cluster.length > 0) pushChoice(rules, svc, route, route.cluster, endpoints, comments);
  if (route.local.length > 0) pushChoice(rules, svl, route, route.local, endpoints, comments);
  const done = new Set<string>();
  for (const list of [route.reachable, route.cluster, route.local]) {
    for (const endpoint of list) {
      const chain = endpoints.get(endpoint.key) as string;
      if (done.has(chain)) continue;
      done.add(chain);
      chains.push(chain);
      pushEndpoint(rules, route, endpoint, chain, comments);
    }
  }
  return { chains, rules };
}

/** Traffic to the cluster IP that does not come from a Pod needs the answer to come back here. */
function pushMasquerade(rules: Rule[], route: Route, shape: Shape, settings: Settings): void {
  if (shape.internalChain === undefined) return;
  if (!settings.masqueradeAll && settings.fromPod === undefined) return;
  const from = settings.masqueradeAll ? '' : ` ${settings.fromPod?.isNot ?? ''}`;
  for (const frontend of route.frontends) {
    if (frontend.kind !== 'clusterIP') continue;
    const proto = frontend.protocol.toLowerCase();
    rules.push({
      chain: shape.internalChain,
      args: `${comment(`${route.port.name} cluster IP`)} -m ${proto} -p ${proto} -d ${frontend.ip} --dport ${frontend.port}${from} -j ${markMasqChain}`,
    });
  }
}

function pushExternal(rules: Rule[], route: Route, shape: Shape, chain: string, settings: Settings): void {
  const of = `for ${route.port.name} external destinations`;
  if (!route.port.externalPolicyLocal) {
    rules.push({ chain, args: `${comment(`masquerade traffic ${of}`)} -j ${markMasqChain}` });
  } else {
    // Pods and the node itself may use all endpoints: the client address that Local keeps is not at stake there.
    const everywhere = route.cluster.length > 0 ? `KUBE-SVC-${shape.hash}` : undefined;
    if (settings.fromPod !== undefined && everywhere !== undefined) {
      rules.push({ chain, args: `${comment(`pod traffic ${of}`)} ${settings.fromPod.is} -j ${everywhere}` });
    }
    const local = '-m addrtype --src-type LOCAL';
    rules.push({ chain, args: `${comment(`masquerade LOCAL traffic ${of}`)} ${local} -j ${markMasqChain}` });
    if (everywhere !== undefined) {
      rules.push({ chain, args: `${comment(`route LOCAL traffic ${of}`)} ${local} -j ${everywhere}` });
    }
  }
  if (shape.externalChain !== undefined) rules.push({ chain, args: `-j ${shape.externalChain}` });
}

function pushFirewall(rules: Rule[], route: Route, chain: string, ext: string, settings: Settings): void {
  const { name, sourceRanges } = route.port;
  const said = comment(`${name} loadbalancer IP`);
  for (const range of sourceRanges) rules.push({ chain, args: `${said} -s ${range} -j ${ext}` });
  // A node that is allowed in may come back to itself with the balancer's address as its source.
  if (containsAddress(sourceRanges, settings.nodeIP)) {
    for (const frontend of route.frontends) {
      if (frontend.kind === 'loadBalancerIP')
        rules.push({ chain, args: `${said} -s ${frontend.ip} -j ${ext}` });
    }
  }
  rules.push({ chain, args: comment(`other traffic to ${name} will be dropped by KUBE-PROXY-FIREWALL`) });
}
