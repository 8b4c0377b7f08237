// The compiler accepts functions without a body, here those of the runtime, only beside assembly.
