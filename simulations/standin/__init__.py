"""A stand-in for k3s: its command line, files and HTTP answers around a real etcd.

It schedules no pods and is no Kubernetes: it offers the few resources that meshd uses. Everything
it says is labelled as a stand-in. It shares no code with meshd, so that the two agree only through
k3s' public behaviour; a contract test holds it to a real k3s where one is at hand.

Settings of its own, all environment variables: `STANDIN_PROMOTE_INTERVAL_S` (seconds between two
looks for learners to promote, default 2; k3s takes 15), `STANDIN_NODE_GRACE_S` (silence after
which a node counts as not ready, default 50 as in Kubernetes), `STANDIN_ETC` (the folder taken for
/etc/rancher).
"""
