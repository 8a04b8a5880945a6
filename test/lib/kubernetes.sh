# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# kubernetes.sh - a real Kubernetes 1.20 on one machine: a control plane and nodes with containerd,
# kubelet and kube-proxy each, all of them in namespaces. After tap.sh, node.sh, cluster.sh and
# image.sh, in a sandbox with control groups (test/tools/sandbox -g). FLAT_KUBERNETES is the folder
# that test/tools/get-kubernetes.sh made.
#
# CLUSTER
#	start_control_plane          wire "lan"; node "cp" with 192.0.2.10 (etcd, API server, controller
#	                             manager, scheduler); "out", an outside host with .100 and no route
#	                             to any pod, to which the nodes' default route leads
#	start_kube_nodes NAME...     nodes nN with 192.0.2.N, powered on: containerd, kubelet, kube-proxy,
#	                             and flatnetd. What is on their disks stays over kill_kube_node.
#	kill_kube_node NAME          the node loses its power
#	wait_ready SECONDS NODE...   asserts that the nodes are Ready within so many seconds
#	at NODE COMMAND...           runs COMMAND in the node, like `on`, in its PID namespace, too
#	daemon NODE NAME COMMAND...  runs COMMAND there, and again half a second after it has ended, as
#	                             systemd would
#	kill_daemon NODE NAME        kill -9; it comes again
#	stop_daemon NODE NAME        kill -9, and it stays away until daemon_again NODE NAME
#	host_untouched               asserts that the machine's sysctls are as they were
# API
#	k ARG...                     kubectl as administrator, at most 30 s
#	node_object NODE JQ          JQ on the Node object
#	workload KIND NAME JQ        a Deployment or DaemonSet as JSON, of pods that answer TCP connections
#	                             to port 8080 with the line "POD PEER"; JQ changes it
#	service NAME PORT JQ         a Service in front of the pods of NAME, likewise
#	apply JSON...                kubectl apply; `null` are left out
#	failed_sandboxes             how many pods did not get their network at the first try
# PODS
#	find_pods                    the pods of the pod network that live: pods=(NAME...), and
#	                             where[NAME]=NODE, ip[NAME], netns[NAME] (a name in /run/netns there)
#	ready_pods COUNT SELECTOR    are so many pods Ready, and no others there?
#	inside POD COMMAND...        runs COMMAND of this machine in the pod's network
#	exact                        prints what is on the nodes and belongs to no live pod, or lacks
#	                             there: addresses, host veths. Nothing: all is exact.
#	all_pairs                    every pod of pods pings every other; prints who was not answered, and
#	                             who was seen with another source address

# shellcheck disable=SC2034,SC2154  # for the tests, and of tap.sh
kube_nodes=() pods=()
declare -A where=() ip=() netns=()

# All files: in the sandbox, but not on /run, which each node has for itself.
kube=/srv/kube
kube_cp=192.0.2.10
kube_dns=10.96.0.10
kube_image=registry.local/busybox:1
kube_bin=${FLAT_KUBERNETES:-}/bin
# What kubelet would write into the whole machine, and what it wants to find.
kube_sysctls=(vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1
	kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000)

at() {
	local node=$1
	shift
	nsenter -t "${node_pid[$node]:?no such node: $node}" -m -n -p -u -- "$@"
}

daemon() {
	local node=$1 name=$2
	shift 2
	printf '%s\0' "$@" >"$kube/$node.$name.command"
	daemon_again "$node" "$name"
}

daemon_again() {
	local command
	mapfile -d '' -t command <"$kube/$1.$2.command"
	# shellcheck disable=SC2016
	PATH=$kube_bin:$PATH setsid env -u TMPDIR nsenter -t "${node_pid[$1]}" -m -n -p -u -- bash -c '
		name=$1; shift
		rm -f "/run/$name.off"
		until [[ -e /run/$name.off ]]; do
			"$@" &
			echo $! >"/run/$name.pid"
			wait $!
			echo "--- $name ended with status $?"
			sleep 0.5
		done' daemon "$2" "${command[@]}" </dev/null >>"$kube/$1.$2.log" 2>&1 &
	disown
}

kill_daemon() {
	# shellcheck disable=SC2016
	at "$1" bash -c 'kill -KILL "$(<"/run/$1.pid")"' kill "$2" 2>/dev/null || :
}

stop_daemon() {
	at "$1" touch "/run/$2.off"
	kill_daemon "$1" "$2"
}

# ---- certificates -------------------------------------------------------------------------------

certificate() { # NAME SUBJECT [SUBJECTALTNAME]
	local pki=$kube/pki
	openssl ecparam -name prime256v1 -genkey -noout -out "$pki/$1.key"
	openssl req -new -key "$pki/$1.key" -subj "$2" |
		openssl x509 -req -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial -days 2 \
			-extfile <(printf 'extendedKeyUsage=serverAuth,clientAuth\n%s\n' "${3:+subjectAltName=$3}") \
			-out "$pki/$1.crt"
}

kubeconfig() { # NAME USER-JSON: of the cluster, for this user
	jq -n --arg server "https://$kube_cp:6443" --arg ca "$kube/pki/ca.crt" --argjson user "$2" '{
		apiVersion: "v1", kind: "Config", "current-context": "c",
		clusters: [{name: "c", cluster: {server: $server, "certificate-authority-data": $ca}}],
		contexts: [{name: "c", context: {cluster: "c", user: "u"}}],
		users: [{name: "u", user: $user}]
	} | .clusters[0].cluster["certificate-authority-data"] |= $pem' \
		--arg pem "$(base64 -w0 "$kube/pki/ca.crt")" >"$kube/pki/$1.conf"
}

client() { # NAME SUBJECT
	certificate "$1" "$2"
	kubeconfig "$1" "$(jq -n --arg cert "$(base64 -w0 "$kube/pki/$1.crt")" --arg key "$(base64 -w0 "$kube/pki/$1.key")" \
		'{"client-certificate-data": $cert, "client-key-data": $key}')"
}

make_certificates() {
	local pki=$kube/pki
	mkdir -p "$pki"
	openssl ecparam -name prime256v1 -genkey -noout -out "$pki/ca.key"
	openssl req -x509 -new -key "$pki/ca.key" -subj /CN=ca -days 2 -out "$pki/ca.crt"
	openssl genrsa -out "$pki/sa.key" 2048
	openssl rsa -in "$pki/sa.key" -pubout -out "$pki/sa.pub"
	certificate apiserver /CN=kube-apiserver \
		"IP:$kube_cp,IP:10.96.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
	client admin /O=system:masters/CN=admin
	client manager /CN=system:kube-controller-manager
	client scheduler /CN=system:kube-scheduler
	client proxy /CN=system:kube-proxy
}

# ---- control plane ------------------------------------------------------------------------------

start_control_plane() {
	[[ ${FLAT_CGROUP:-} ]] || skip_all 'not in a sandbox with control groups'
	[[ -x $FLAT_BIN/flatnetd ]] || skip_all 'flatnetd was not built'
	local entry
	mount -t tmpfs -o mode=0755 tmpfs "${kube%/*}"
	mkdir "$kube"
	at_exit save_logs
	for entry in "${kube_sysctls[@]}"; do
		sed "s:^:${entry%=*} :" "/proc/sys/${entry%=*}"
	done >"$kube/sysctls"
	make_certificates >"$kube/pki.log" 2>&1
	make_image "$kube/pause.tar" registry.local/pause:3.2 /bin/pause "$kube_bin/pause"
	make_image "$kube/image.tar" "$kube_image" /bin/sh "$(command -v socat)" "$(command -v dnsmasq)"

	make_wire lan
	make_node cp lan "$kube_cp/24"
	make_node out lan 192.0.2.100/24
	start_etcd
	start_apiserver
	daemon cp controller-manager kube-controller-manager --kubeconfig="$kube/pki/manager.conf" \
		--authentication-kubeconfig="$kube/pki/manager.conf" --authorization-kubeconfig="$kube/pki/manager.conf" \
		--bind-address=127.0.0.1 --port=0 --cert-dir="$kube/cp" --leader-elect=false \
		--use-service-account-credentials=true --service-account-private-key-file="$kube/pki/sa.key" \
		--root-ca-file="$kube/pki/ca.crt" --cluster-cidr=10.244.0.0/16 --service-cluster-ip-range=10.96.0.0/16 \
		--allocate-node-cidrs=true --node-cidr-mask-size=24 --kube-api-qps=100 --kube-api-burst=200 \
		--node-monitor-period=2s --node-monitor-grace-period=20s
	daemon cp scheduler kube-scheduler --kubeconfig="$kube/pki/scheduler.conf" \
		--authentication-kubeconfig="$kube/pki/scheduler.conf" --authorization-kubeconfig="$kube/pki/scheduler.conf" \
		--bind-address=127.0.0.1 --port=0 --cert-dir="$kube/cp" --leader-elect=false
	eventually 60 'the API server is ready' api_ready
	k apply -f "$FLAT_ROOT/conf/kubernetes/rbac.yaml" >/dev/null
	k create clusterrolebinding kube-proxy --clusterrole=system:node-proxier --user=system:kube-proxy >/dev/null
}

start_etcd() {
	daemon cp etcd etcd --name c --data-dir "$kube/etcd" --unsafe-no-fsync --log-level warn \
		--listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
		--listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
		--initial-cluster c=http://127.0.0.1:2380
}

start_apiserver() {
	mkdir -p "$kube/cp"
	daemon cp apiserver kube-apiserver --bind-address=$kube_cp --secure-port=6443 --advertise-address=$kube_cp \
		--etcd-servers=http://127.0.0.1:2379 --authorization-mode=Node,RBAC --client-ca-file="$kube/pki/ca.crt" \
		--tls-cert-file="$kube/pki/apiserver.crt" --tls-private-key-file="$kube/pki/apiserver.key" \
		--service-account-issuer=https://kubernetes.default.svc.cluster.local \
		--service-account-signing-key-file="$kube/pki/sa.key" --service-account-key-file="$kube/pki/sa.pub" \
		--service-cluster-ip-range=10.96.0.0/16 --allow-privileged=true --cert-dir="$kube/cp" \
		--kubelet-client-certificate="$kube/pki/admin.crt" --kubelet-client-key="$kube/pki/admin.key" \
		--kubelet-preferred-address-types=InternalIP \
		--default-not-ready-toleration-seconds=30 --default-unreachable-toleration-seconds=30
}

k() {
	on cp timeout -k 2 30 "$kube_bin/kubectl" --kubeconfig "$kube/pki/admin.conf" --cache-dir "$kube/kubectl" "$@"
}

api_ready() {
	[[ $(k get --raw /readyz 2>/dev/null) == ok ]]
}

host_untouched() {
	local entry
	is "$(for entry in "${kube_sysctls[@]}"; do
		sed "s:^:${entry%=*} :" "/proc/sys/${entry%=*}"
	done)" "$(<"$kube/sysctls")" "the machine's sysctls are as they were"
}

# The logs of daemons are worth a look when something failed.
save_logs() {
	local logs=$FLAT_BUILD/test-logs/kubernetes/daemons/${0##*/}
	rm -rf "$logs"
	((tap_failed > 0)) || [[ -z $tap_done ]] || return 0
	mkdir -p "$logs"
	cp "$kube"/*.log "$logs/"
	! api_ready || k get events -A >"$logs/events" 2>/dev/null || :
}

# ---- nodes --------------------------------------------------------------------------------------

kube_groups() { # NODE make|remove: its control groups, in each hierarchy
	local hierarchy group key
	for hierarchy in /sys/fs/cgroup/*/; do
		group=$hierarchy$FLAT_CGROUP/$1
		if [[ $2 == remove ]]; then
			[[ ! -d $group ]] || find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || :
			continue
		fi
		mkdir -p "$group"
		for key in cpuset.cpus cpuset.mems; do
			[[ ! -e $hierarchy/$key ]] || tee "${group%/*}/$key" "$group/$key" <"$hierarchy/$key" >/dev/null
		done
	done
}

# The node's disk: what stays when it loses its power.
make_disk() {
	local name=$1 disk=$kube/$1
	mkdir -p "$disk"/{etc,opt,etc.work,opt.work,lib,sysctl}
	mkdir -p "$disk/opt/cni/bin" "$disk/etc/containerd" "$disk/etc/kubernetes" "$disk/lib/flatnet"
	cp "$FLAT_KUBERNETES/cni/loopback" "$disk/opt/cni/bin/"
	cp -L "$FLAT_BIN/flatnet" "$FLAT_BIN/flatnet-ipam" "$disk/opt/cni/bin/"
	cat >"$disk/etc/containerd/config.toml" <<-'END'
		version = 2
		[plugins."io.containerd.grpc.v1.cri"]
		  sandbox_image = "registry.local/pause:3.2"
		  stream_server_address = "127.0.0.1"
		  disable_apparmor = true
		  restrict_oom_score_adj = true
		  [plugins."io.containerd.grpc.v1.cri".cni]
		    bin_dir = "/opt/cni/bin"
		  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
		    runtime_type = "io.containerd.runc.v2"
		    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
		      SystemdCgroup = false
	END
	client "$name" "/O=system:nodes/CN=system:node:$name" >>"$kube/pki.log" 2>&1
	jq -n --arg ca "$kube/pki/ca.crt" --arg root "/$FLAT_CGROUP/$name" '{
		apiVersion: "kubelet.config.k8s.io/v1beta1", kind: "KubeletConfiguration", address: "0.0.0.0",
		authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "/etc/kubernetes/ca.crt"}},
		authorization: {mode: "Webhook"}, cgroupDriver: "cgroupfs", cgroupRoot: $root, failSwapOn: false,
		protectKernelDefaults: true, resolvConf: "", clusterDNS: ["10.96.0.10"], clusterDomain: "cluster.local",
		kubeAPIQPS: 50, kubeAPIBurst: 100, nodeStatusUpdateFrequency: "2s", staticPodPath: "/etc/kubernetes/manifests",
		evictionHard: {"memory.available": "10Mi", "nodefs.available": "1%", "imagefs.available": "1%"}
	}' >"$disk/etc/kubernetes/kubelet.conf"
	jq -n --arg name "$name" --arg address "192.0.2.${name#n}" '{
		apiVersion: "kubeproxy.config.k8s.io/v1alpha1", kind: "KubeProxyConfiguration", bindAddress: $address,
		clientConnection: {kubeconfig: "/etc/kubernetes/proxy.kubeconfig"}, hostnameOverride: $name, mode: "iptables",
		clusterCIDR: "10.244.0.0/16",
		conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: "0s", tcpCloseWaitTimeout: "0s"}
	}' >"$disk/etc/kubernetes/proxy.conf"
	mkdir -p "$disk/etc/kubernetes/manifests"
	# kubelet asks name servers and the metadata services of clouds where it is: a quick no.
	echo 'nameserver 127.0.0.1' >"$disk/etc/resolv.conf"
	cp "$kube/pki/ca.crt" "$disk/etc/kubernetes/ca.crt"
	cp "$kube/pki/$name.conf" "$disk/etc/kubernetes/kubelet.kubeconfig"
	cp "$kube/pki/proxy.conf" "$disk/etc/kubernetes/proxy.kubeconfig"
	local entry
	for entry in "${kube_sysctls[@]}"; do
		mkdir -p "$disk/sysctl/${entry%/*}"
		printf '%s\n' "${entry#*=}" >"$disk/sysctl/${entry%=*}"
	done
}

power_on() {
	local name=$1 disk=$kube/$1 fifo=$kube/$1.fifo word='' holder
	rm -f "$fifo"
	mkfifo -m 0600 "$fifo"
	kube_groups "$name" make
	# PID 1 is the pause program: it reaps orphans. Killing it is the power switch.
	# shellcheck disable=SC2016
	setsid unshare -m -n -p -u -f --kill-child --mount-proc --propagation slave bash -c '
		set -e
		name=$1 disk=$2 fifo=$3 pause=$4
		exec 3>"$fifo"
		hostname "$name"
		ip link set lo up
		for dir in etc opt; do
			mount -t overlay -o "lowerdir=/$dir,upperdir=$disk/$dir,workdir=$disk/$dir.work" overlay "/$dir"
		done
		mount --bind "$disk/lib" /var/lib
		cd "$disk/sysctl"
		find * -type f | while read -r entry; do mount --bind "$entry" "/proc/sys/$entry"; done
		cd /
		mount -t tmpfs -o mode=0755 tmpfs /var/log
		mkdir /run/cgroup.$name
		mount --rbind /sys/fs/cgroup /run/cgroup.$name
		mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
		mount --rbind /run/cgroup.$name /sys/fs/cgroup
		umount -l /run/cgroup.$name
		rmdir /run/cgroup.$name
		mount -t tmpfs -o mode=0755 tmpfs /run
		mkdir -p /run/netns /run/lock
		mount --make-rshared /
		echo ready >&3
		exec 3>&-
		exec "$pause"
	' power "$name" "$disk" "$fifo" "$kube_bin/pause" </dev/null >>"$kube/$name.power.log" 2>&1 &
	holder=$!
	disown
	read -r -t 20 word <"$fifo" || :
	rm -f "$fifo"
	if [[ $word != ready ]]; then
		diag "node $name has no power: $(<"$kube/$name.power.log")"
		return 1
	fi
	# shellcheck disable=SC2004  # an associative array
	node_pid[$name]=$(pgrep -P "$holder")
	on lan ip link add "$name" type veth peer name eth0 netns "${node_pid[$name]}"
	on lan ip link set "$name" master wire up
	on "$name" ip address add "192.0.2.${name#n}/24" dev eth0
	on "$name" ip link set eth0 up
	on "$name" ip route add default via 192.0.2.100
	on "$name" ip route add unreachable 169.254.0.0/16
	on "$name" sysctl -q -w net.ipv4.ip_forward=1
}

has_containerd() {
	at "$1" "$kube_bin/ctr" version
}

start_kube_nodes() {
	local name i
	for name; do
		[[ -d $kube/$name ]] || make_disk "$name"
		power_on "$name"
		daemon "$name" containerd containerd
	done
	for name; do
		for ((i = 0; i < 100; i++)); do
			! has_containerd "$name" >/dev/null 2>&1 || break
			sleep 0.1
		done
		for i in pause image; do
			at "$name" "$kube_bin/ctr" -n k8s.io images import "$kube/$i.tar" >>"$kube/$name.images.log" 2>&1
		done
		daemon "$name" kubelet kubelet --config=/etc/kubernetes/kubelet.conf \
			--kubeconfig=/etc/kubernetes/kubelet.kubeconfig --hostname-override="$name" --node-ip="192.0.2.${name#n}" \
			--container-runtime=remote --container-runtime-endpoint=unix:///run/containerd/containerd.sock
		daemon "$name" kube-proxy kube-proxy --config=/etc/kubernetes/proxy.conf
		kube_nodes+=("$name")
	done
	for name; do
		give_network "$name"
	done
}

kill_kube_node() {
	local node left=() i
	kill_node "$1"
	for node in "${kube_nodes[@]}"; do
		[[ $node == "$1" ]] || left+=("$node")
	done
	kube_nodes=("${left[@]}")
	for ((i = 0; i < 50; i++)); do
		kube_groups "$1" remove
		compgen -G "/sys/fs/cgroup/*/$FLAT_CGROUP/$1" >/dev/null || break
		sleep 0.1
	done
}

# ---- the network --------------------------------------------------------------------------------
#
# What a person does who installs flatnet in a cluster and on a node, and the only place that knows it.

# The agent's right to read nodes, as conf/kubernetes/rbac.yaml gives it.
account() {
	local secret i
	[[ ! -e $kube/pki/flatnetd.conf ]] || return 0
	for ((i = 0; i < 100; i++)); do
		secret=$(k -n kube-system get serviceaccount flatnetd -o json | jq -r '.secrets[0].name // ""')
		[[ -z $secret ]] || break
		sleep 0.1
	done
	kubeconfig flatnetd "$(k -n kube-system get secret "$secret" -o json | jq '{token: .data.token | @base64d}')"
}

give_network() {
	account
	at "$1" mkdir -p /etc/flatnet
	at "$1" tee /etc/flatnet/flatnetd.json <"$FLAT_ROOT/conf/flatnetd.json" >/dev/null
	at "$1" tee /etc/kubernetes/flatnetd.conf <"$kube/pki/flatnetd.conf" >/dev/null
	daemon "$1" flatnetd "$FLAT_BIN/flatnetd" --config /etc/flatnet/flatnetd.json --node-name "$1"
}

# ---- looking ------------------------------------------------------------------------------------

node_object() {
	k get node "$1" -o json | jq -r "$2"
}

are_ready() {
	local count
	count=$(k get nodes "$@" -o json |
		jq '[.items // [.] | .[] | select(any(.status.conditions[]; .type == "Ready" and .status == "True"))] | length')
	((count == $#))
}

wait_ready() {
	eventually "$1" "Ready: ${*:2}" are_ready "${@:2}"
}

workload() {
	jq -n --arg kind "$1" --arg name "$2" --arg image "$kube_image" '{
		apiVersion: "apps/v1", kind: $kind, metadata: {name: $name},
		spec: {selector: {matchLabels: {app: $name}}, template: {metadata: {labels: {app: $name}}, spec: {
			terminationGracePeriodSeconds: 1, automountServiceAccountToken: false, enableServiceLinks: false,
			containers: [{name: "c", image: $image, imagePullPolicy: "Never",
				command: ["sh", "-c", "echo here is $(hostname); exec socat TCP-LISTEN:8080,fork,reuseaddr,backlog=64 \"SYSTEM:echo $(hostname) \\$SOCAT_PEERADDR\""]}]}}}
	} | '"$3"
}

service() {
	jq -n --arg name "$1" --argjson port "$2" '{apiVersion: "v1", kind: "Service", metadata: {name: $name},
		spec: {selector: {app: $name}, ports: [{name: "p", port: $port, targetPort: 8080}]}} | '"$3"
}

apply() {
	local json
	for json; do
		printf '%s\n' "$json"
	done | jq -s '{apiVersion: "v1", kind: "List", items: .}' | k apply -f - >/dev/null
}

ready_pods() {
	k get pods -l "$2" -o json | jq -e --argjson count "$1" '[.items[] | select(.metadata.deletionTimestamp == null)] |
		length == $count and all(.[]; any(.status.conditions[]?; .type == "Ready" and .status == "True"))' >/dev/null
}

failed_sandboxes() {
	k get events -A --field-selector reason=FailedCreatePodSandBox -o json | jq '.items | length'
}

find_pods() {
	local node name address at_node
	pods=() where=() ip=() netns=()
	while read -r name node address; do
		pods+=("$name")
		where[$name]=$node
		ip[$name]=$address
	done < <(k get pods -A -o json | jq -r '.items[] |
		select(.metadata.deletionTimestamp == null and .status.podIP and (.spec.hostNetwork | not)) |
		"\(.metadata.name) \(.spec.nodeName) \(.status.podIP)"')
	local -A of=()
	for node in "${kube_nodes[@]}"; do
		# shellcheck disable=SC2016
		while read -r at_node address; do
			of[$node/$address]=$at_node
		done < <(on "$node" bash -c '
			for netns in /run/netns/*; do
				address=$(nsenter --net="$netns" ip -4 -o address show dev eth0 2>/dev/null) || continue
				read -r _ _ _ address _ <<<"$address"
				echo "${netns##*/} ${address%/*}"
			done')
	done
	for name in "${pods[@]}"; do
		netns[$name]=${of[${where[$name]}/${ip[$name]}]:-}
	done
}

inside() {
	local pod=$1
	shift
	pod_exec "${where[$pod]}" "${netns[$pod]:?no such pod: $pod}" "$@"
}

# What of a node's flatnet there is: "reserved ADDRESS", "link ADDRESS", "namespace".
holdings() {
	# shellcheck disable=SC2016
	on "$1" bash -c '
		find /run/flatnet/ipam -type f -name "10.*" -printf "reserved %f\n" 2>/dev/null
		ip -j link show type veth | jq -r ".[] | select(.linkinfo != null or true) |
			select(.ifname | startswith(\"veth\")) | \"link \" + ((.ifalias // \"~ ~ ~ ~ without-alias\") | split(\" \")[4])"'
}

exact() {
	local node pod
	find_pods
	for node in "${kube_nodes[@]}"; do
		diff <(for pod in "${pods[@]}"; do
			[[ ${where[$pod]} != "$node" ]] || printf 'reserved %s\nlink %s\n' "${ip[$pod]}" "${ip[$pod]}"
		done | sort) <(holdings "$node" | sort) | sed -n "s/^</$node lacks/p; s/^>/$node has/p" || :
	done
}

is_exact() {
	[[ $(exact) == '' ]]
}

all_pairs() {
	local from to addresses=() seen
	for to in "${pods[@]}"; do
		addresses+=("${ip[$to]}")
		inside "$to" nft -f - <<-'END'
			add table inet seen
			delete table inet seen
			table inet seen {
				set from { type ipv4_addr; flags dynamic; size 1000; }
				chain in { type filter hook input priority 0; icmp type echo-request update @from { ip saddr }; }
			}
		END
	done
	for from in "${pods[@]}"; do
		# shellcheck disable=SC2016
		inside "$from" bash -c '
			self=$1 name=$2; shift 2
			for to; do
				[[ $to == "$self" ]] || ping -n -q -c 1 -W 3 "$to" >/dev/null 2>&1 || echo "$name has no answer from $to" &
			done
			wait' all "${ip[$from]}" "$from" "${addresses[@]}"
	done
	for to in "${pods[@]}"; do
		seen=$(inside "$to" nft -j list set inet seen from | jq -r '.nftables[].set?.elem[]?' | sort | xargs)
		[[ $seen == "$(printf '%s\n' "${addresses[@]}" | grep -vxF "${ip[$to]}" | sort | xargs)" ]] ||
			echo "$to saw $seen"
		inside "$to" nft delete table inet seen
	done
}
