"""Kubernetes and OpenShift objects to model events, each change once."""
