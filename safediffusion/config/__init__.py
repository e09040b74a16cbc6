"""What a run is made of: the schema of a recipe, reading one, and building the experiment it describes."""
