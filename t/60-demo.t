#!/usr/bin/perl
# Guards: the demo and the README's commands, as written and with the documented ports, bring hd-1's call to hd-2 through the proxy.
use strict;
use warnings;
use File::Copy qw(copy);
use File::Find ();
use File::Path qw(make_path);
use HyperTest;
use Test::More;

# The documented ports may be in use: a network of our own, with nothing but its loopback.
if (!$ENV{T_OWN_NET}) {
	plan skip_all => 'needs root for a network namespace of its own' if $> != 0 || system('unshare --net true 2>/dev/null') != 0;
	$ENV{T_OWN_NET} = 1;
	exec 'unshare', '--net', 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh', $^X, (map { "-I$_" } @INC), $0 or die "exec: $!";
}

# A checkout of its own: the source by links, settings/dev copied, the tests' certificates in their documented place.
my $tree = tmp() . '/tree';
make_path("$tree/tools", "$tree/settings");
symlink $_, "$tree/" . s{.*/}{}r for grep { !m{/(?:build[^/]*|settings|tools)$} } glob source() . '/*';
symlink $_, "$tree/tools/" . s{.*/}{}r for glob source() . '/tools/*';
symlink source() . '/settings/Makefile.inc', "$tree/settings/Makefile.inc";
symlink build(), "$tree/build" or die "symlink: $!";
File::Find::find({ no_chdir => 1, wanted => sub {
	my ($to) = $File::Find::name =~ m{/(settings/dev.*)};
	return if $to =~ m{^settings/dev/(?:certs|store/[^R]|directory/002)};
	-d $File::Find::name ? make_path("$tree/$to") : copy($File::Find::name, "$tree/$to") || die "copy $to: $!";
} }, source() . '/settings/dev');
system('cp', '-a', certs(), "$tree/settings/dev/certs") == 0 or die 'cp'; # no link: `make certs` is run below
copy(certs() . '.records/002_certificates.json', "$tree/settings/dev/directory/") or die "copy: $!";

$ENV{PATH} = build() . "/bin:$ENV{PATH}";
my $make = "top_srcdir=$tree"; # what the build folder was configured with is another folder
sub shell { return run_program([ 'sh', '-c', "cd '$tree' && $_[0]" ], env => { MAKEFLAGS => "-- $make" }, timeout => 120) }

my ($code, $out, $err) = shell('make certs');
isnt($code, 0, 'make certs: refuses to overwrite');
like($err, qr/is there already/, 'and says so');

# --- ./dev demo, after its build ---
($code, $out, $err) = shell('tools/demo');
is($code, 0, 'the demo: exit status 0') or diag("$out$err");
like($out, qr/^"?\s*"serverInfo": \{\n.*?"name": "hd-2"/ms, "shows hd-2's reply");
my $n = 0;
for my $step (qw(asked issued told parked confirmed answered paired secured)) {
	$n++;
	like($out, qr/^  $n $step +[\d.]+ ms$/m, "step $n, $step, with its time");
}
my ($session) = $out =~ /^session ([0-9a-f]{12}), through public-proxy-1\.ga$/m;
ok($session, 'and its session');
like($out, qr/ ended pair=\d+ session=$session .*reason=closed /, "the pair's end reason");
like($out, qr/^== all stopped$/m, 'stops everything') or diag($err);
my $logs = join '', map { read_file($_) } glob build() . '/demo/*.log';
like($logs, qr/ session=$session /, 'the logs have the session');
unlike($out . $logs, qr{[A-Za-z0-9+/]{43}=}, 'and nothing the token');

# --- the README's lines, one by one ---
my $readme = read_file(source() . '/README.md');
my @lines = $readme =~ /^    (\w+_SETTINGS=settings\S+ .*)$/mg;
is(scalar @lines, 5, 'README: five programs');
my @d;
for my $line (@lines) {
	my ($role) = $line =~ m{roles/(\S+)};
	push @d, start($role, [ 'sh', '-c', "cd '$tree' && exec env $line" ]);
	ok($d[-1]->is_running, $line);
}
($code, $out, $err) = shell('make sd-setup');
is($code, 0, 'make sd-setup') or diag("$out$err");
my ($curl) = $readme =~ /^    (curl --cert .*?\| jq \.)$/ms;
ok($curl, 'README: the call');
my $reply;
wait_until { ($code, $out, $err) = shell($curl); $reply = eval { json_value($out) }; $reply->{result} } 15;
is($reply->{result}{serverInfo}{name}, 'hd-2', 'hd-2 answers') or diag("$out$err");
is($reply->{id}, '1', 'under its id');
($code, $out, $err) = shell($curl) for 1 .. 3;
my ($proxy) = grep { $_->{name} eq 'public-proxy-1' } @d;
is($proxy->count_log(qr/ pair session=/), 1, 'through the proxy, over one pair');
is($_->stop, 0, "$_->{name}: TERM ends it with status 0") for reverse @d;
hyper_done();
