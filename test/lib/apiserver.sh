# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# apiserver.sh - etcd and a real kube-apiserver, alone, on the loopback of this sandbox: for tests of
# the agent's Kubernetes source. After tap.sh. FLAT_KUBERNETES is the folder that
# test/tools/get-kubernetes.sh made.
#
#	need_apiserver               skips the script where the binaries are missing
#	start_apiserver              certificates, etcd, API server; waits until it is ready
#	stop_api, start_api          kill -9 of the API server alone, and its return
#	k ARG...                     kubectl as administrator
#	user_certificate NAME        a client certificate $pki/NAME.crt and .key for user NAME
#	kubeconfig NAME PORT USER-JSON     writes $pki/NAME.conf
#	service_account_token        prints a token of kube-system's service account flatnetd
#	node_json NAME JQ            a Node object, changed by JQ
#
# $api is its folder, $pki that of certificates. The API server listens at 127.0.0.1:6443; its
# certificate is good for $api_names.

FLAT_KUBERNETES=${FLAT_KUBERNETES:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/flatnet-kubernetes}
api_bin=$FLAT_KUBERNETES/bin
api='' pki='' api_pid='' api_names=IP:127.0.0.1

need_apiserver() {
	local name
	for name in etcd etcdctl kube-apiserver kubectl; do
		[[ -x $api_bin/$name ]] ||
			skip_all "$api_bin/$name is not there: run test/tools/get-kubernetes.sh"
	done
	[[ $(</proc/1/comm) == sandbox ]] || skip_all 'not in a sandbox: run it by test/run'
}

k() {
	timeout 30 "$api_bin/kubectl" --kubeconfig "$pki/admin.conf" --cache-dir "$api/cache" "$@"
}

user_certificate() { # NAME [SUBJECT [EXTENSIONS]]
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$pki/$1.key" \
		-subj "${2:-/CN=$1}" -out "$pki/$1.csr"
	openssl x509 -req -in "$pki/$1.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial -days 2 \
		-extfile <(printf '%s\n' "${3:-extendedKeyUsage=clientAuth}") -out "$pki/$1.crt"
} >>"${api:-/dev}/pki.log" 2>&1

kubeconfig() {
	jq -n --arg server "https://127.0.0.1:$2" --argjson user "$3" '{
		apiVersion: "v1", kind: "Config", "current-context": "c",
		clusters: [{name: "c", cluster: {server: $server, "certificate-authority": "ca.crt"}}],
		contexts: [{name: "c", context: {cluster: "c", user: "u"}}],
		users: [{name: "u", user: $user}]
	}' >"$pki/$1.conf"
}

start_api() {
	"$api_bin/kube-apiserver" --bind-address=127.0.0.1 --secure-port=6443 --advertise-address=127.0.0.1 \
		--etcd-servers=http://127.0.0.1:2379 --authorization-mode=Node,RBAC --client-ca-file="$pki/ca.crt" \
		--tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
		--service-account-issuer=https://kubernetes.default.svc.cluster.local \
		--service-account-signing-key-file="$pki/sa.key" --service-account-key-file="$pki/sa.pub" \
		--service-cluster-ip-range=10.96.0.0/16 --cert-dir="$api" --etcd-compaction-interval=0 \
		--max-requests-inflight=2000 --max-mutating-requests-inflight=1000 "$@" >>"$api/apiserver.log" 2>&1 &
	api_pid=$!
	disown
	local end=$((SECONDS + 120))
	until [[ $(k get --raw /readyz 2>/dev/null) == ok ]]; do
		if ((SECONDS > end)); then
			diag "$(tail -5 "$api/apiserver.log")"
			fail 'the API server becomes ready'
			exit 1
		fi
		sleep 0.2
	done
}

stop_api() {
	kill -KILL "$api_pid"
	while [[ -e /proc/$api_pid ]]; do sleep 0.05; done
}

start_apiserver() {
	api=$(mktemp -d) pki=$api/pki
	mkdir "$pki"
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$pki/ca.key" \
		-out "$pki/ca.crt" -subj /CN=test-ca -days 2 >>"$api/pki.log" 2>&1
	{
		openssl genrsa -out "$pki/sa.key" 2048
		openssl rsa -in "$pki/sa.key" -pubout -out "$pki/sa.pub"
	} >>"$api/pki.log" 2>&1
	user_certificate apiserver /CN=kube-apiserver "$(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth' "$api_names")"
	user_certificate admin /O=system:masters/CN=admin
	kubeconfig admin 6443 "$(jq -n --arg pki "$pki" \
		'{"client-certificate": ($pki + "/admin.crt"), "client-key": ($pki + "/admin.key")}')"
	"$api_bin/etcd" --name c --data-dir "$api/etcd" --listen-client-urls http://127.0.0.1:2379 \
		--advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 \
		--initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster c=http://127.0.0.1:2380 \
		--unsafe-no-fsync --quota-backend-bytes=4294967296 >"$api/etcd.log" 2>&1 &
	disown
	start_api "$@"
	k create serviceaccount -n kube-system flatnetd >/dev/null
}

service_account_token() {
	jq -n '{apiVersion: "authentication.k8s.io/v1", kind: "TokenRequest", spec: {expirationSeconds: 3600}}' |
		k create --raw /api/v1/namespaces/kube-system/serviceaccounts/flatnetd/token -f - | jq -r .status.token
}

node_json() { # NAME [JQ]
	jq -nc --arg name "$1" '{apiVersion: "v1", kind: "Node", metadata: {name: $name}} | '"${2:-.}"
}
