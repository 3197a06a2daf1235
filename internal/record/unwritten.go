package record

import "fmt"

// Unwritten says why one record was not written to a projection.
type Unwritten struct {
	Key Key
	// Retryable is true where the same write can succeed later: the server is away,
	// overloaded, read-only or misconfigured. False means that it refuses what this
	// record holds.
	Retryable bool
	Err       error
}

// WriteError holds the records that a server did not take; all others of the same call it took.
type WriteError struct {
	Server   string
	Failures []Unwritten // at least one
}

// Error names the number of failures and the first of them.
func (e *WriteError) Error() string {
	first := e.Failures[0]
	return fmt.Sprintf("%s: %d records not written, the first %s: %v", e.Server, len(e.Failures), first.Key, first.Err)
}

// Unwrap gives the cause of each failure to errors.Is and errors.As.
func (e *WriteError) Unwrap() []error {
	errs := make([]error, len(e.Failures))
	for i, f := range e.Failures {
		errs[i] = f.Err
	}
	return errs
}
