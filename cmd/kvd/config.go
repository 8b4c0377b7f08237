package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A setting is a flag that the environment and the configuration file can give too: --listen is
// KVD_LISTEN and the key listen. First come, first served, in the order flag, environment, file,
// default. Flags that are no settings (--prefix, --limit) belong to one run of one command.
const settingAnnotation = "kvd_setting"

const (
	originFlag    = "flag"
	originDefault = "default"
)

// setting makes settings of flags that were defined before.
func setting(flags *pflag.FlagSet, names ...string) {
	for _, name := range names {
		// It fails only for a flag that does not exist.
		if err := flags.SetAnnotation(name, settingAnnotation, []string{name}); err != nil {
			panic(err)
		}
	}
}

func environmentName(flag string) string {
	return "KVD_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// configure completes the flags of cmd from the environment and the configuration file.
func (p *program) configure(cmd *cobra.Command) error {
	path := p.configFile
	if path == "" {
		path = os.Getenv(environmentName("config"))
	}
	values, err := readConfig(path, settingNames(cmd.Root()))
	if err != nil {
		return &usageError{err: err}
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if err == nil && f.Annotations[settingAnnotation] != nil {
			p.origins[f.Name], err = resolve(f, values, path)
		}
	})
	if err != nil {
		return &usageError{err: err}
	}
	return p.checkOutput()
}

// resolve gives one flag its value and returns where that came from.
func resolve(f *pflag.Flag, values map[string]string, path string) (origin string, err error) {
	if f.Changed {
		return originFlag, nil
	}
	if v := os.Getenv(environmentName(f.Name)); v != "" {
		origin = "environment " + environmentName(f.Name)
		err = f.Value.Set(v)
		if err != nil {
			err = fmt.Errorf("%s=%q: %w", environmentName(f.Name), v, err)
		}
		return origin, err
	}
	if v, ok := values[f.Name]; ok {
		if err = f.Value.Set(v); err != nil {
			err = fmt.Errorf("%s: %s = %q: %w", path, f.Name, v, err)
		}
		return "file " + path, err
	}
	return originDefault, nil
}

// settingNames returns the names of all settings of all commands, sorted.
func settingNames(cmd *cobra.Command) []string {
	var names []string
	add := func(f *pflag.Flag) {
		if f.Annotations[settingAnnotation] != nil {
			names = append(names, f.Name)
		}
	}
	cmd.Flags().VisitAll(add)
	cmd.PersistentFlags().VisitAll(add)
	for _, c := range cmd.Commands() {
		names = append(names, settingNames(c)...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// configBytesMax bounds what is read of a config file; all the settings take a few lines.
const configBytesMax = 1 << 20

// readConfig reads a TOML file of settings. Anything in it that is no setting is an error: a
// misspelt key must not go unnoticed.
func readConfig(path string, known []string) (map[string]string, error) {
	if path == "" {
		return nil, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("config file: %w", err)
	}
	if info.Size() > configBytesMax {
		return nil, fmt.Errorf("config file %s: %d bytes, more than %d", path, info.Size(),
			configBytesMax)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("config file: %w", err)
	}
	return parseConfig(path, string(text), known)
}

// parseConfig is readConfig for the text of the file.
func parseConfig(path, text string, known []string) (map[string]string, error) {
	var raw map[string]any
	if _, err := toml.Decode(text, &raw); err != nil {
		return nil, fmt.Errorf("config file %s: %w", path, err)
	}
	values := make(map[string]string, len(raw))
	for key, v := range raw {
		if !slices.Contains(known, key) {
			return nil, fmt.Errorf("config file %s: unknown key %q%s", path, key,
				didYouMean(key, known))
		}
		switch v := v.(type) {
		case string, bool, int64, float64:
			values[key] = fmt.Sprint(v)
		default:
			return nil, fmt.Errorf("config file %s: %s must be a string, a number or a boolean",
				path, key)
		}
	}
	return values, nil
}

// didYouMean returns a suggestion for a misspelt name, or nothing.
func didYouMean(name string, known []string) string {
	best, distance := "", 1+len(name)/3
	for _, k := range known {
		d := editDistance(strings.ToLower(strings.ReplaceAll(name, "_", "-")), k)
		if d <= distance {
			best, distance = k, d-1
		}
	}
	if best == "" {
		return "; the keys are " + strings.Join(known, ", ")
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// editDistance counts the insertions, deletions and replacements that turn a into b (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// configCommand shows what the other commands would work with.
func (p *program) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show every setting, its value and where it comes from",
		Args:  noArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return p.showConfig(cmd) }
	return cmd
}

type configRow struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Origin string `json:"origin"`
}

// explainDefault is the value of a setting that nobody has given. Some are found out when they are
// needed.
func (p *program) explainDefault(name, value string) string {
	switch name {
	case "replicas":
		return "3, or all nodes if fewer"
	case "known-nodes":
		if path, err := p.client.knownServers(); err == nil {
			return path
		}
	}
	return value
}

func (p *program) showConfig(cmd *cobra.Command) error {
	// configure has seen the flags of this command only; the others come from their commands.
	path := p.configFile
	if path == "" {
		path = os.Getenv(environmentName("config"))
	}
	known := settingNames(cmd.Root())
	values, err := readConfig(path, known)
	if err != nil {
		return &usageError{err: err}
	}
	rows := map[string]configRow{}
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		show := func(f *pflag.Flag) {
			if f.Annotations[settingAnnotation] == nil || rows[f.Name].Name != "" || err != nil {
				return
			}
			var origin string
			if origin, err = resolve(f, values, path); err == nil {
				rows[f.Name] = configRow{f.Name, f.Value.String(), origin}
			}
		}
		c.Flags().VisitAll(show)
		c.PersistentFlags().VisitAll(show)
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(cmd.Root())
	if err != nil {
		return &usageError{err: err}
	}
	table := p.newTable("SETTING", "VALUE", "FROM")
	for _, name := range known {
		row := rows[name]
		if o := p.origins[name]; o == originFlag {
			row.Origin = originFlag
		}
		if row.Origin == originDefault {
			row.Value = p.explainDefault(name, row.Value)
		}
		table.add(row, row.Name, row.Value, row.Origin)
	}
	return table.flush()
}
