"""The mathematics of diffusion and flow matching: paths, losses, guidance, samplers."""
