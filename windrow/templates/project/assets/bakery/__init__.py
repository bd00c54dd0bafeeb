"""How many loaves will a shop sell tomorrow?"""
