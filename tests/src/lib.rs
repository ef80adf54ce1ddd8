//! Tests of the detector on real kernels: see tests/vm.rs.
