package models

// SpectralNorm is the estimate of the largest singular value that spectral_norm divides by.
var SpectralNorm = spectralNorm

// TimeFrequencies are the frequencies of a timestep embedder.
var TimeFrequencies = timeFrequencies
