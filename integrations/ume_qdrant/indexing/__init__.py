"""From files and items to points: plan, embed, write, enrich."""
