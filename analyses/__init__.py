"""What is measured: kernels on arrays, and analyses that map a specimen to labelled numbers."""
