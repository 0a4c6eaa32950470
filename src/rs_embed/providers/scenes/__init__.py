"""From the scenes of a catalogue or folder to one raster."""
