/** The types of the API, in the notation that `schema.ts` explains. Data only. */
export const schemaText = `
package io.k8s.apimachinery.pkg.apis.meta.v1
ObjectMeta // Identity and bookkeeping common to all objects.
  name string // Unique within the namespace; cannot be changed.
  generateName string // A prefix from which the server makes a unique name.
  namespace string // The space within which the name is unique; empty for cluster-scoped objects.
  selfLink string
  uid string // Unique in time and space; set by the server.
  resourceVersion string // Changes with every write; give it back to notice concurrent writes.
  generation int64 // Counts changes of the wanted state.
  creationTimestamp time
  deletionTimestamp time // Set once deletion was asked for.
  deletionGracePeriodSeconds int64
  labels map[string] // Keys and values to select objects by.
  annotations map[string] // Keys and values for tools.
  ownerReferences []OwnerReference map=uid merge=uid // Objects this one depends on.
  finalizers []string set mergeSet // Names of parties that must act before the object goes.
  managedFields []ManagedFieldsEntry // Who set which field.
OwnerReference // Names an owner of an object, in the same namespace.
  apiVersion! string
  kind! string
  name! string
  uid! string
  controller boolean
  blockOwnerDeletion boolean
ManagedFieldsEntry // The fields that one manager owns.
  manager string
  operation string
  apiVersion string
  time time
  fieldsType string
  fieldsV1 any
  subresource string
ListMeta // Bookkeeping of a list.
  selfLink string
  resourceVersion string
  continue string
  remainingItemCount int64
LabelSelector // Selects objects by their labels.
  matchLabels map[string]
  matchExpressions []LabelSelectorRequirement
LabelSelectorRequirement
  key! string
  operator! string
  values []string
Condition // One aspect of an object's state.
  type! string
  status! string
  observedGeneration int64
  lastTransitionTime! time
  reason! string
  message! string

package io.k8s.api.core.v1
kind Namespace // A space within which names are unique.
  apiVersion string
  kind string
  metadata ObjectMeta
  spec NamespaceSpec
  status NamespaceStatus
NamespaceSpec
  finalizers []string
NamespaceStatus
  phase string // Active or Terminating.
  conditions []NamespaceCondition map=type merge=type
NamespaceCondition
  type! string
  status! string
  lastTransitionTime time
  reason string
  message string
kind Service // A name and stable addresses for a set of Pods, and the policy by which they are reached.
  apiVersion string
  kind string
  metadata ObjectMeta
  spec ServiceSpec // What is wanted.
  status ServiceStatus // What a load balancer has set up.
ServiceSpec // How a Service is reached and what stands behind it.
  ports []ServicePort map=port,protocol merge=port // The ports at which the Service answers.
  selector map[string] // Labels of the Pods behind the Service; empty if endpoints are published by others.
  clusterIP string // The first address inside the cluster; None for a headless Service. Assigned if empty.
  clusterIPs []string // The addresses inside the cluster, at most one a family.
  type string // ClusterIP, NodePort, LoadBalancer or ExternalName.
  externalIPs []string // Further addresses that nodes accept traffic for.
  sessionAffinity string // None, or ClientIP to keep a client on its endpoint.
  sessionAffinityConfig SessionAffinityConfig
  loadBalancerIP string
  loadBalancerSourceRanges []string // Clients that may use the load balancer's addresses.
  loadBalancerClass string
  allocateLoadBalancerNodePorts boolean
  externalName string // A DNS name this Service is an alias of (type ExternalName).
  externalTrafficPolicy string // Cluster, or Local to use endpoints of the node that traffic arrived at.
  internalTrafficPolicy string // Cluster, or Local to use endpoints of the node that traffic starts from.
  healthCheckNodePort int32 // Where nodes tell a load balancer whether they have endpoints.
  publishNotReadyAddresses boolean
  ipFamilies []string // IPv4, IPv6, in order.
  ipFamilyPolicy string // SingleStack, PreferDualStack or RequireDualStack.
  trafficDistribution string // PreferSameZone, PreferSameNode or PreferClose.
ServicePort // One port of a Service.
  name string // Required and unique if there is more than one port.
  protocol string default=TCP // TCP, UDP or SCTP.
  appProtocol string
  port! int32 // The port at the Service's addresses.
  targetPort intOrString // The port of the Pods, by number or by name.
  nodePort int32 // The port at every node; assigned if empty where the type wants one.
SessionAffinityConfig
  clientIP ClientIPConfig
ClientIPConfig
  timeoutSeconds int32 // How long a client stays on its endpoint; 10800 if absent.
ServiceStatus
  loadBalancer LoadBalancerStatus
  conditions []Condition map=type merge=type
LoadBalancerStatus
  ingress []LoadBalancerIngress
LoadBalancerIngress // An address at which a load balancer takes traffic.
  ip string
  ipMode string // VIP or Proxy.
  hostname string
  ports []PortStatus
PortStatus
  port! int32
  protocol! string
  error string
kind Node // A machine of the cluster.
  apiVersion string
  kind string
  metadata ObjectMeta
  spec NodeSpec
  status NodeStatus
NodeSpec
  podCIDR string
  podCIDRs []string set mergeSet // Address blocks of the node's Pods.
  providerID string
  unschedulable boolean
  taints []Taint
  configSource any
  externalID string
Taint
  key! string
  value string
  effect! string
  timeAdded time
NodeStatus
  capacity map[quantity]
  allocatable map[quantity]
  phase string
  conditions []NodeCondition map=type merge=type
  addresses []NodeAddress map=type merge=type
  daemonEndpoints any
  nodeInfo any
  images []any
  volumesInUse []string
  volumesAttached []any
  config any
  runtimeHandlers []any
  features any
  declaredFeatures []string
NodeCondition
  type! string
  status! string
  lastHeartbeatTime time
  lastTransitionTime time
  reason string
  message string
NodeAddress
  type! string
  address! string
kind Pod // One or more containers that share a network namespace.
  apiVersion string
  kind string
  metadata ObjectMeta
  spec PodSpec
  status PodStatus
PodTemplateSpec
  metadata ObjectMeta
  spec PodSpec
PodSpec // What a Pod should run, and where.
  volumes []Volume map=name merge=name
  initContainers []Container map=name merge=name
  containers! []Container map=name merge=name
  ephemeralContainers []Container map=name merge=name
  restartPolicy string
  terminationGracePeriodSeconds int64 // Seconds a Pod has to end after deletion was asked for.
  activeDeadlineSeconds int64
  dnsPolicy string
  nodeSelector map[string] // Labels a node must have.
  serviceAccountName string
  serviceAccount string
  automountServiceAccountToken boolean
  nodeName string // The node the Pod runs on; set by the scheduler.
  hostNetwork boolean
  hostPID boolean
  hostIPC boolean
  hostUsers boolean
  hostnameOverride string
  shareProcessNamespace boolean
  securityContext any
  imagePullSecrets []LocalObjectReference map=name merge=name
  hostname string
  subdomain string
  affinity any
  schedulerName string
  tolerations []Toleration
  hostAliases []HostAlias map=ip merge=ip
  priorityClassName string
  priority int32
  dnsConfig any
  readinessGates []any
  runtimeClassName string
  enableServiceLinks boolean
  preemptionPolicy string
  overhead map[quantity]
  topologySpreadConstraints []TopologySpreadConstraint map=topologyKey,whenUnsatisfiable merge=topologyKey
  setHostnameAsFQDN boolean
  os any
  schedulingGates []any
  resourceClaims []any
  resources ResourceRequirements
LocalObjectReference
  name string
Toleration
  key string
  operator string
  value string
  effect string
  tolerationSeconds int64
HostAlias
  ip! string
  hostnames []string
TopologySpreadConstraint
  maxSkew! int32
  topologyKey! string
  whenUnsatisfiable! string
  labelSelector LabelSelector
  minDomains int32
  nodeAffinityPolicy string
  nodeTaintsPolicy string
  matchLabelKeys []string
Volume
  name! string
  configMap any
  secret any
  emptyDir any
  hostPath any
  projected any
  downwardAPI any
  persistentVolumeClaim any
  nfs any
  csi any
  ephemeral any
  image any
Container
  name! string
  image string
  command []string
  args []string
  workingDir string
  ports []ContainerPort map=containerPort,protocol merge=containerPort
  envFrom []any
  env []EnvVar map=name merge=name
  resources ResourceRequirements
  resizePolicy []any
  restartPolicy string
  restartPolicyRules []any
  volumeMounts []VolumeMount map=mountPath merge=mountPath
  volumeDevices []any
  livenessProbe any
  readinessProbe any
  startupProbe any
  lifecycle any
  terminationMessagePath string
  terminationMessagePolicy string
  imagePullPolicy string
  securityContext any
  stdin boolean
  stdinOnce boolean
  tty boolean
  targetContainerName string
ResourceRequirements
  limits map[quantity]
  requests map[quantity]
  claims []any
ContainerPort
  name string
  hostPort int32
  containerPort! int32
  protocol string default=TCP
  hostIP string
EnvVar
  name! string
  value string
  valueFrom any
VolumeMount
  name! string
  readOnly boolean
  recursiveReadOnly string
  mountPath! string
  subPath string
  mountPropagation string
  subPathExpr string
PodStatus // What is known of a running Pod.
  observedGeneration int64
  phase string // Pending, Running, Succeeded or Failed.
  conditions []PodCondition map=type merge=type
  message string
  reason string
  nominatedNodeName string
  hostIP string
  hostIPs []HostIP
  podIP string
  podIPs []PodIP map=ip merge=ip
  startTime time
  initContainerStatuses []any
  containerStatuses []any
  qosClass string
  ephemeralContainerStatuses []any
  resize string
  resourceClaimStatuses []any
  allocatedResources map[quantity]
  resources ResourceRequirements
HostIP
  ip! string
PodIP
  ip! string
PodCondition
  type! string
  status! string
  observedGeneration int64
  lastProbeTime time
  lastTransitionTime time
  reason string
  message string
kind Endpoints // The former way to publish endpoints; kept in step with EndpointSlices.
  apiVersion string
  kind string
  metadata ObjectMeta
  subsets []EndpointSubset
EndpointSubset
  addresses []EndpointAddress
  notReadyAddresses []EndpointAddress
  ports []EndpointPort
EndpointAddress
  ip! string
  hostname string
  nodeName string
  targetRef ObjectReference
EndpointPort
  name string
  port! int32
  protocol string
  appProtocol string
ObjectReference
  kind string
  namespace string
  name string
  uid string
  apiVersion string
  resourceVersion string
  fieldPath string
kind Event // Something that happened to an object.
  apiVersion string
  kind string
  metadata! ObjectMeta
  involvedObject! ObjectReference
  reason string
  message string
  source EventSource
  firstTimestamp time
  lastTimestamp time
  count int32
  type string
  eventTime microTime
  series EventSeries
  action string
  related ObjectReference
  reportingComponent string
  reportingInstance string
EventSource
  component string
  host string
EventSeries
  count int32
  lastObservedTime microTime
kind ConfigMap // Configuration as keys and values.
  apiVersion string
  kind string
  metadata ObjectMeta
  data map[string]
  binaryData map[bytes]
  immutable boolean
kind Secret // Secret values, base64.
  apiVersion string
  kind string
  metadata ObjectMeta
  data map[bytes]
  stringData map[string]
  type string
  immutable boolean
kind ServiceAccount // An identity for processes.
  apiVersion string
  kind string
  metadata ObjectMeta
  secrets []ObjectReference map=name merge=name
  imagePullSecrets []LocalObjectReference
  automountServiceAccountToken boolean

package io.k8s.api.discovery.v1
kind EndpointSlice // Some of the endpoints of a Service, all of one address family.
  apiVersion string
  kind string
  metadata ObjectMeta
  addressType! string // IPv4, IPv6 or FQDN; cannot be changed.
  endpoints! []Endpoint // At most 1000 endpoints.
  ports []EndpointPort // The ports of every endpoint in this slice.
Endpoint // One address behind a Service.
  addresses! []string set // The first one is used.
  conditions EndpointConditions
  hostname string
  targetRef ObjectReference // The Pod this address belongs to.
  deprecatedTopology map[string]
  nodeName string
  zone string
  hints EndpointHints
EndpointConditions // Whether traffic may go there. Absent: ready, serving, not terminating.
  ready boolean
  serving boolean
  terminating boolean
EndpointHints // Who should use this endpoint.
  forZones []ForZone
  forNodes []ForNode
ForZone
  name! string
ForNode
  name! string
EndpointPort // A port of every endpoint in a slice.
  name string // The name of the Service's port.
  protocol string
  port int32
  appProtocol string

package io.k8s.api.events.v1
kind Event // Something that happened to an object.
  apiVersion string
  kind string
  metadata ObjectMeta
  eventTime! microTime
  series EventSeries
  reportingController string
  reportingInstance string
  action string
  reason string
  regarding ObjectReference
  related ObjectReference
  note string
  type string
  deprecatedSource EventSource
  deprecatedFirstTimestamp time
  deprecatedLastTimestamp time
  deprecatedCount int32

package io.k8s.api.apps.v1
kind Deployment // Keeps a number of equal Pods running and replaces them when their template changes.
  apiVersion string
  kind string
  metadata ObjectMeta
  spec DeploymentSpec
  status DeploymentStatus
DeploymentSpec
  replicas int32 // How many Pods are wanted; 1 if absent.
  selector! LabelSelector // Which Pods are the Deployment's; cannot be changed.
  template! PodTemplateSpec
  strategy DeploymentStrategy
  minReadySeconds int32
  revisionHistoryLimit int32
  paused boolean
  progressDeadlineSeconds int32
DeploymentStrategy
  type string
  rollingUpdate RollingUpdateDeployment
RollingUpdateDeployment
  maxUnavailable intOrString
  maxSurge intOrString
DeploymentStatus
  observedGeneration int64
  replicas int32
  updatedReplicas int32
  readyReplicas int32
  availableReplicas int32
  unavailableReplicas int32
  terminatingReplicas int32
  conditions []DeploymentCondition map=type merge=type
  collisionCount int32
DeploymentCondition
  type! string
  status! string
  lastUpdateTime time
  lastTransitionTime time
  reason string
  message string
kind ReplicaSet // Keeps a number of equal Pods running.
  apiVersion string
  kind string
  metadata ObjectMeta
  spec ReplicaSetSpec
  status ReplicaSetStatus
ReplicaSetSpec
  replicas int32
  minReadySeconds int32
  selector! LabelSelector
  template PodTemplateSpec
ReplicaSetStatus
  replicas int32
  fullyLabeledReplicas int32
  readyReplicas int32
  availableReplicas int32
  terminatingReplicas int32
  observedGeneration int64
  conditions []ReplicaSetCondition map=type merge=type
ReplicaSetCondition
  type! string
  status! string
  lastTransitionTime time
  reason string
  message string

package io.k8s.api.autoscaling.v1
kind Scale // How many replicas something has.
  apiVersion string
  kind string
  metadata ObjectMeta
  spec ScaleSpec
  status ScaleStatus
ScaleSpec
  replicas int32
ScaleStatus
  replicas int32
  selector string

package io.k8s.api.networking.v1
kind ServiceCIDR // Address ranges from which Services get cluster IPs.
  apiVersion string
  kind string
  metadata ObjectMeta
  spec ServiceCIDRSpec
  status ServiceCIDRStatus
ServiceCIDRSpec
  cidrs []string // One range, or one a family; cannot be changed.
ServiceCIDRStatus
  conditions []Condition map=type merge=type
kind IPAddress // An address that something uses.
  apiVersion string
  kind string
  metadata ObjectMeta
  spec IPAddressSpec
IPAddressSpec
  parentRef! ParentReference
ParentReference
  group string
  resource! string
  namespace string
  name! string

package io.k8s.api.coordination.v1
kind Lease // A claim that is held for a time.
  apiVersion string
  kind string
  metadata ObjectMeta
  spec LeaseSpec
LeaseSpec
  holderIdentity string
  leaseDurationSeconds int32
  acquireTime microTime
  renewTime microTime
  leaseTransitions int32
  strategy string
  preferredHolder string
`;
