"""Places as people have them, for tables of embeddings."""

from rs_embed.files.place_tables import Places as Places
from rs_embed.files.place_tables import places_of as places_of
