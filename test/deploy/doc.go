// Package deploy checks what the system is deployed by: check.sh runs its steps, of
// which one is the tests of this package. They need helm, kubectl and kubeconform, so
// they have a build tag, and `make check-deploy` gets the tools.
package deploy
