/**
 * Server and client of the lab share one table of field numbers, so neither would notice a mistake in it. Here the
 * numbers stand a second time, not made from the table; each was found in the struct tags of kubectl 1.35
 * (`strings kubectl | grep protobuf:`), which come from the published types.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MessageSchema } from '../../../src/api/protobuf/message.ts';
import { kinds } from '../../../src/api/protobuf/schema.ts';
import { wireMessages } from '../../../src/lab/apiserver/wiremessages.ts';

/** `Message: field number [Message of that field]`, in the order of the published files. */
const published = `
ObjectMeta: name 1, generateName 2, namespace 3, selfLink 4, uid 5, resourceVersion 6, generation 7, creationTimestamp 8, deletionTimestamp 9, deletionGracePeriodSeconds 10, labels 11, annotations 12, ownerReferences 13 OwnerReference, finalizers 14, managedFields 17 ManagedFieldsEntry
OwnerReference: kind 1, name 3, uid 4, apiVersion 5, controller 6, blockOwnerDeletion 7
ManagedFieldsEntry: manager 1, operation 2, apiVersion 3, time 4, fieldsType 6, fieldsV1 7, subresource 8
ListMeta: selfLink 1, resourceVersion 2, continue 3, remainingItemCount 4
Condition: type 1, status 2, observedGeneration 3, lastTransitionTime 4, reason 5, message 6
LabelSelector: matchLabels 1, matchExpressions 2 LabelSelectorRequirement
LabelSelectorRequirement: key 1, operator 2, values 3
Status: metadata 1 ListMeta, status 2, message 3, reason 4, details 5 StatusDetails, code 6
StatusDetails: name 1, group 2, kind 3, causes 4 StatusCause, retryAfterSeconds 5, uid 6
StatusCause: reason 1, message 2, field 3
DeleteOptions: gracePeriodSeconds 1, preconditions 2 Preconditions, orphanDependents 3, propagationPolicy 4, dryRun 5
Preconditions: uid 1, resourceVersion 2
Service: metadata 1 ObjectMeta, spec 2 ServiceSpec, status 3 ServiceStatus
ServiceSpec: ports 1 ServicePort, selector 2, clusterIP 3, type 4, externalIPs 5, sessionAffinity 7, loadBalancerIP 8, loadBalancerSourceRanges 9, externalName 10, externalTrafficPolicy 11, healthCheckNodePort 12, publishNotReadyAddresses 13, sessionAffinityConfig 14 SessionAffinityConfig, ipFamilyPolicy 17, clusterIPs 18, ipFamilies 19, allocateLoadBalancerNodePorts 20, loadBalancerClass 21, internalTrafficPolicy 22, trafficDistribution 23
ServicePort: name 1, protocol 2, port 3, targetPort 4, nodePort 5, appProtocol 6
SessionAffinityConfig: clientIP 1 ClientIPConfig
ClientIPConfig: timeoutSeconds 1
ServiceStatus: loadBalancer 1 LoadBalancerStatus, conditions 2 Condition
LoadBalancerStatus: ingress 1 LoadBalancerIngress
LoadBalancerIngress: ip 1, hostname 2, ipMode 3, ports 4 PortStatus
PortStatus: port 1, protocol 2, error 3
EndpointSlice: metadata 1 ObjectMeta, endpoints 2 Endpoint, ports 3 EndpointPort, addressType 4
Endpoint: addresses 1, conditions 2 EndpointConditions, hostname 3, targetRef 4 ObjectReference, deprecatedTopology 5, nodeName 6, zone 7, hints 8 EndpointHints
EndpointConditions: ready 1, serving 2, terminating 3
EndpointHints: forZones 1 ForZone, forNodes 2 ForNode
ForZone: name 1
ForNode: name 1
EndpointPort: name 1, protocol 2, port 3, appProtocol 4
ObjectReference: kind 1, namespace 2, name 3, uid 4, apiVersion 5, resourceVersion 6, fieldPath 7
Node: metadata 1 ObjectMeta, spec 2 NodeSpec, status 3 NodeStatus
NodeSpec: podCIDR 1, providerID 3, unschedulable 4, taints 5 Taint, podCIDRs 7
Taint: key 1, value 2, effect 3, timeAdded 4
NodeStatus: capacity 1, allocatable 2, phase 3, conditions 4 NodeCondition, addresses 5 NodeAddress, daemonEndpoints 6 NodeDaemonEndpoints, nodeInfo 7 NodeSystemInfo
NodeCondition: type 1, status 2, lastHeartbeatTime 3, lastTransitionTime 4, reason 5, message 6
NodeAddress: type 1, address 2
NodeDaemonEndpoints: kubeletEndpoint 1 DaemonEndpoint
DaemonEndpoint: Port 1
NodeSystemInfo: machineID 1, systemUUID 2, bootID 3, kernelVersion 4, osImage 5, containerRuntimeVersion 6, kubeletVersion 7, kubeProxyVersion 8, operatingSystem 9, architecture 10
ServiceCIDR: metadata 1 ObjectMeta, spec 2 ServiceCIDRSpec, status 3 ServiceCIDRStatus
ServiceCIDRSpec: cidrs 1
ServiceCIDRStatus: conditions 1 Condition
Namespace: metadata 1 ObjectMeta, spec 2 NamespaceSpec, status 3 NamespaceStatus
NamespaceSpec: finalizers 1
NamespaceStatus: phase 1
ConfigMap: metadata 1 ObjectMeta, data 2, immutable 4
Secret: metadata 1 ObjectMeta, data 2, type 3, stringData 4
ServiceAccount: metadata 1 ObjectMeta, automountServiceAccountToken 4
Pod: metadata 1 ObjectMeta, spec 2 PodSpec
PodSpec: containers 2 Container, restartPolicy 3, terminationGracePeriodSeconds 4, dnsPolicy 6, nodeSelector 7, serviceAccountName 8, serviceAccount 9, nodeName 10, hostNetwork 11, hostPID 12, hostIPC 13, hostname 16, subdomain 17, schedulerName 19, initContainers 20 Container
Container: name 1, image 2, command 3, args 4, workingDir 5, ports 6 ContainerPort, env 7 EnvVar, resources 8 ResourceRequirements, terminationMessagePath 13, imagePullPolicy 14, stdin 16, stdinOnce 17, tty 18, terminationMessagePolicy 20
ContainerPort: name 1, hostPort 2, containerPort 3, protocol 4, hostIP 5
EnvVar: name 1, value 2
ResourceRequirements: limits 1, requests 2
core.Event: metadata 1 ObjectMeta, involvedObject 2 ObjectReference, reason 3, message 4, source 5 EventSource, firstTimestamp 6, lastTimestamp 7, count 8, type 9, eventTime 10, series 11 EventSeries, action 12, related 13 ObjectReference, reportingComponent 14, reportingInstance 15
events.Event: metadata 1 ObjectMeta, eventTime 2, series 3 EventSeries, reportingController 4, reportingInstance 5, action 6, reason 7, regarding 8 ObjectReference, related 9 ObjectReference, note 10, type 11, deprecatedSource 12 EventSource, deprecatedFirstTimestamp 13, deprecatedLastTimestamp 14, deprecatedCount 15
EventSource: component 1, host 2
EventSeries: count 1, lastObservedTime 2
Deployment: metadata 1 ObjectMeta, spec 2 DeploymentSpec
DeploymentSpec: replicas 1, selector 2 LabelSelector, template 3 PodTemplateSpec, strategy 4 DeploymentStrategy, minReadySeconds 5, revisionHistoryLimit 6, paused 7, progressDeadlineSeconds 9
PodTemplateSpec: metadata 1 ObjectMeta, spec 2 PodSpec
DeploymentStrategy: type 1, rollingUpdate 2 RollingUpdateDeployment
RollingUpdateDeployment: maxUnavailable 1, maxSurge 2
Scale: metadata 1 ObjectMeta, spec 2 ScaleSpec, status 3 ScaleStatus
ScaleSpec: replicas 1
ScaleStatus: replicas 1, selector 2
SelfSubjectAccessReview: metadata 1 ObjectMeta, spec 2 SelfSubjectAccessReviewSpec, status 3 SubjectAccessReviewStatus
SelfSubjectAccessReviewSpec: resourceAttributes 1 ResourceAttributes, nonResourceAttributes 2 NonResourceAttributes
ResourceAttributes: namespace 1, verb 2, group 3, version 4, resource 5, subresource 6, name 7
NonResourceAttributes: path 1, verb 2
SubjectAccessReviewStatus: allowed 1, reason 2, evaluationError 3
SelfSubjectReview: metadata 1 ObjectMeta, status 2 SelfSubjectReviewStatus
SelfSubjectReviewStatus:
Eviction: metadata 1 ObjectMeta, deleteOptions 2 DeleteOptions
Lease: metadata 1 ObjectMeta, spec 2 LeaseSpec
LeaseSpec: holderIdentity 1, leaseDurationSeconds 2, acquireTime 3, renewTime 4, leaseTransitions 5
`;

const messages = new Map(
  published
    .trim()
    .split('\n')
    .map((line): [string, string] => [
      line.slice(0, line.indexOf(':')),
      line.slice(line.indexOf(':') + 1).trim(),
    ]),
);

/** Every field of the schema as `path: field number [Message]`, to be compared with what was published. */
function compare(schema: MessageSchema, name: string, path: string): void {
  const line = messages.get(name);
  assert.ok(line !== undefined, `${path}: message ${name} is not written down`);
  const fields = new Map(
    line === ''
      ? []
      : line.split(', ').map((field): [string, string[]] => {
          const [fieldName = '', ...rest] = field.split(' ');
          return [fieldName, rest];
        }),
  );
  const numbers = (entries: Iterable<readonly [string, number]>): string[] =>
    [...entries].map(([field, number]) => `${path}.${field} = ${number}`);
  assert.deepEqual(
    numbers([...schema].map(([field, { number }]) => [field, number] as const)),
    numbers([...fields].map(([field, [number]]) => [field, Number(number)] as const)),
  );
  for (const [field, { type }] of schema) {
    const inner = fields.get(field)?.[1];
    assert.equal(typeof type !== 'string', inner !== undefined, `${path}.${field}: message or not`);
    if (typeof type !== 'string') compare(type, inner ?? '', `${path}.${field}`);
  }
}

const names: Readonly<Record<string, string>> = {
  'v1/Event': 'core.Event',
  'events.k8s.io/v1/Event': 'events.Event',
};

test('the field numbers of all messages are the published ones', () => {
  for (const [kind, schema] of wireMessages) {
    compare(schema, names[kind] ?? kind.slice(kind.lastIndexOf('/') + 1), kind);
  }
  compare(kinds.Status.fields, 'Status', 'Status');
});
